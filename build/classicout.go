package build

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	solverrors "github.com/moby/buildkit/solver/errdefs"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// classicWatcher tells a build in the words of the classic builder, which scripts look for.
type classicWatcher struct {
	emit  func(model.BuildMessage) error
	told  map[string]bool   // steps that were announced, by digest
	names map[string]string // of vertexes
	warns map[string]bool
}

func newClassicWatcher(emit func(model.BuildMessage) error) *classicWatcher {
	return &classicWatcher{emit: emit, told: map[string]bool{}, names: map[string]string{}, warns: map[string]bool{}}
}

// stepName is how BuildKit names a step of a Dockerfile: "[2/3] RUN make" or "[stage 2/3] RUN make".
var stepName = regexp.MustCompile(`^\[(?:([^\]]*) )?(\d+)/(\d+)\] (.*)$`)

func (c *classicWatcher) status(s *controlapi.StatusResponse) error {
	var b strings.Builder
	for _, v := range s.Vertexes {
		c.names[v.Digest] = v.Name
		if v.Started != nil || v.Cached {
			c.step(&b, v.Digest, v.Cached)
		}
	}
	for _, l := range s.Logs {
		c.step(&b, l.Vertex, false)
		b.Write(l.Msg)
	}
	for _, w := range s.Warnings {
		if text := string(w.Short); !c.warns[text] {
			c.warns[text] = true
			fmt.Fprintf(&b, "[Warning] %s\n", text)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return c.emit(model.BuildMessage{Stream: b.String()})
}

// step announces a step once.
func (c *classicWatcher) step(b *strings.Builder, digest string, cached bool) {
	if c.told[digest] {
		return
	}
	m := stepName.FindStringSubmatch(strings.ReplaceAll(c.names[digest], "\n", " "))
	if m == nil {
		return
	}
	c.told[digest] = true
	stage := ""
	if m[1] != "" && !strings.HasPrefix(m[1], "stage-") {
		stage = " (" + m[1] + ")"
	}
	fmt.Fprintf(b, "Step %s/%s%s : %s\n", m[2], m[3], stage, m[4])
	if cached {
		b.WriteString(" ---> Using cache\n")
	}
}

func (c *classicWatcher) built(id string, tags []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Successfully built %s\n", ids.Short(id))
	for _, t := range tags {
		if ref, err := model.ParseReference(t); err == nil {
			fmt.Fprintf(&b, "Successfully tagged %s\n", ref.Familiar())
		}
	}
	return c.emit(model.BuildMessage{Stream: b.String()})
}

// explain makes a build's failure one that names the Dockerfile's line.
func explain(err error) error {
	if errs.Is(err, errs.Canceled) {
		return err
	}
	var where bytes.Buffer
	for _, s := range solverrors.Sources(err) {
		s.Print(&where)
	}
	if where.Len() > 0 {
		return errs.New(errs.Invalid, "%s\n%w", strings.TrimRight(where.String(), "\n"), err)
	}
	return err
}
