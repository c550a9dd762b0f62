package build

import (
	"bytes"
	"errors"
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

// status sends every announcement and every piece of output as a message of its own, as the classic builder does: readers
// that look for a step's words find them at the beginning of one.
func (c *classicWatcher) status(s *controlapi.StatusResponse) error {
	for _, v := range s.Vertexes {
		c.names[v.Digest] = v.Name
		if v.Started != nil || v.Cached {
			if err := c.step(v.Digest, v.Cached); err != nil {
				return err
			}
		}
	}
	for _, l := range s.Logs {
		if err := errors.Join(c.step(l.Vertex, false), c.say("%s", l.Msg)); err != nil {
			return err
		}
	}
	for _, w := range s.Warnings {
		if text := string(w.Short); !c.warns[text] {
			c.warns[text] = true
			if err := c.say("[Warning] %s\n", text); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *classicWatcher) say(format string, args ...any) error {
	return c.emit(model.BuildMessage{Stream: fmt.Sprintf(format, args...)})
}

// step announces a step once.
func (c *classicWatcher) step(digest string, cached bool) error {
	if c.told[digest] {
		return nil
	}
	m := stepName.FindStringSubmatch(strings.ReplaceAll(c.names[digest], "\n", " "))
	if m == nil {
		return nil
	}
	c.told[digest] = true
	stage := ""
	if m[1] != "" && !strings.HasPrefix(m[1], "stage-") {
		stage = " (" + m[1] + ")"
	}
	err := c.say("Step %s/%s%s : %s\n", m[2], m[3], stage, m[4])
	if err == nil && cached {
		err = c.say(" ---> Using cache\n")
	}
	return err
}

func (c *classicWatcher) built(id string, tags []string) error {
	err := c.say("Successfully built %s\n", ids.Short(id))
	for _, t := range tags {
		if ref, rerr := model.ParseReference(t); rerr == nil && err == nil {
			err = c.say("Successfully tagged %s\n", ref.Familiar())
		}
	}
	return err
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
