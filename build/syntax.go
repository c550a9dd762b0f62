package build

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	bkexecutor "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/dockerfile/version"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shoalhq/shoal/model"
)

// syntaxFrontend serves "# syntax=". A line that asks for a release of Docker's Dockerfile front end, which is what nearly all
// such lines do, gets the built-in one when that is the same release or newer: nothing is pulled or run, and it works
// without network. Everything else is an image that is run.
type syntaxFrontend struct {
	image, builtin frontend.Frontend
}

func (f syntaxFrontend) Solve(ctx context.Context, llb frontend.FrontendLLBBridge, exec bkexecutor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	if opt["cmdline"] == "" || !isBuiltin(opt[frontend.KeySource], version.Version()) { // a command line keeps the built-in one from reading the line again
		return f.image.Solve(ctx, llb, exec, opt, inputs, sid, sm)
	}
	return f.builtin.Solve(ctx, llb, exec, opt, inputs, sid, sm)
}

// isBuiltin says whether the built-in front end, of the release given, does all that the image named would. An image by
// digest is meant to be that one and no other.
func isBuiltin(source, release string) bool {
	ref, err := model.ParseReference(source)
	if err != nil || ref.Digest != "" || ref.Domain+"/"+ref.Path != "docker.io/docker/dockerfile" {
		return false
	}
	asked := ref.Tag
	for _, channel := range []string{"labs", "experimental"} { // the built-in one has what is experimental
		if asked == channel {
			return true
		}
		asked = strings.TrimSuffix(asked, "-"+channel)
	}
	if asked == "latest" {
		return true
	}
	want, have := strings.Split(asked, "."), strings.FieldsFunc(release, func(r rune) bool { return r == '.' || r == '-' })
	if len(want) > 3 || len(have) < 2 {
		return false
	}
	for i, part := range want {
		w, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return false
		}
		var h uint64
		if i < len(have) {
			h, _ = strconv.ParseUint(have[i], 10, 16)
		}
		switch {
		case i == 0 && w != h: // another major release may mean other things by the same words
			return false
		case w < h && i > 0:
			return true
		case w > h:
			return false
		}
	}
	return true
}

// defaultScanner is what BuildKit runs for a bill of materials when no other is named.
const defaultScanner = "docker/buildkit-syft-scanner"

// buildDockerfile is the built-in front end.
func buildDockerfile(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	res, err := dockerfile.Build(ctx, c)
	if err != nil && strings.Contains(err.Error(), defaultScanner) {
		err = fmt.Errorf("a bill of materials (SBOM) is made by a scanner, which is an image, and the default one cannot be had here: load %s:stable-1, or name another "+
			"by --attest type=sbom,generator=IMAGE: %w", defaultScanner, err)
	}
	return res, err
}
