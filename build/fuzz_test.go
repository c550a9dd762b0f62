package build

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/go-archive"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"

	"github.com/shoalhq/shoal/model"
)

// everyImage resolves every name to the same image.
type everyImage struct{}

func (everyImage) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config := []byte(`{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin"],"OnBuild":["RUN true"]},"rootfs":{"type":"layers"}}`)
	return ref, digest.FromBytes(config), config, nil
}

// FuzzDockerfile: the front end runs inside the daemon, so no Dockerfile of anybody may bring it down.
func FuzzDockerfile(f *testing.F) {
	for _, s := range []string{
		"FROM scratch\n", "ARG A=1\nFROM a:${A:-2} AS b\nFROM b\nCOPY --from=b --chmod=u=rwx,go=r --link a* /\n",
		"FROM a\nRUN --mount=type=cache,id=x,sharing=locked,target=/c --mount=type=bind,from=b,source=/,target=/m --network=none --security=insecure <<E1 <<-'E2'\na $B\nE1\n\tb\nE2\n",
		"# syntax=a/b\n# escape=`\n# check=skip=all;error=true\nFROM a\nRUN a `\n b\nHEALTHCHECK --interval=1s --retries=3 CMD [\"a\"]\n",
		"FROM a\nADD --checksum=sha256:e3b0 --keep-git-dir=true http://h/x git://h/r#v:d /d/\nONBUILD COPY . .\nSTOPSIGNAL 9\nSHELL [\"a\",\"-c\"]\nUSER a:b\nWORKDIR ../..\nVOLUME [\"/a\",\"/b\"]\nEXPOSE 1-2/udp\nENTRYPOINT a\nCMD b\nLABEL a=b c='d e'\nENV a b\nMAINTAINER x\n",
		"FROM --platform=$BUILDPLATFORM a AS a0\nENV X=${Y##*/} Z=${X/a/b}${W:?no}\n", "FROM a\nCOPY <<x /y\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		opt := dockerfile2llb.ConvertOpt{Config: dockerui.Config{BuildArgs: map[string]string{"V": "1"}}, MetaResolver: everyImage{}, Warn: func(string, string, string, string, []parser.Range) {}}
		if res, err := dockerfile2llb.Dockerfile2LLB(ctx, data, opt); err == nil {
			if _, err := res.State.Marshal(ctx); err != nil && strings.Contains(err.Error(), "panic") {
				t.Fatal(err)
			}
		}
		opt.AllStages = true // as the checks of a Dockerfile do
		dockerfile2llb.Dockerfile2Outline(ctx, data, opt)
	})
}

// FuzzDockerignore reads patterns as clients and front end do, and asks about a name.
func FuzzDockerignore(f *testing.F) {
	f.Add("*.log\n!keep.log\n**/x\n# c\n/a/../b/\n", "a/keep.log")
	f.Add("[a-\n\\\n!\n!!a\n", "[")
	f.Fuzz(func(t *testing.T, text, name string) {
		patterns, err := ignorefile.ReadAll(strings.NewReader(text))
		if err != nil {
			return
		}
		if m, err := patternmatcher.New(patterns); err == nil {
			m.MatchesOrParentMatches(filepath.Clean(name))
		}
	})
}

// FuzzContext unpacks archives as contexts and ADD do; nothing may come to be outside the directory.
func FuzzContext(f *testing.F) {
	for _, names := range [][2]string{{"a", "b"}, {"../x", "/etc/y"}, {"l/../../z", "l"}} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../outside"})
		for _, n := range names {
			w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg, Size: 1, Mode: 0o644})
			w.Write([]byte("x"))
			w.WriteHeader(&tar.Header{Name: n + "h", Typeflag: tar.TypeLink, Linkname: n})
		}
		w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		inside := filepath.Join(top, "inside")
		if err := os.Mkdir(inside, 0o700); err != nil {
			t.Fatal(err)
		}
		archive.Unpack(bytes.NewReader(data), inside, &archive.TarOptions{NoLchown: true, BestEffortXattrs: true})
		left, err := os.ReadDir(top)
		if err != nil || len(left) != 1 {
			t.Fatalf("outside of the directory: %v %v", left, err)
		}
	})
}

// FuzzRequest makes what BuildKit is asked from what a client of the classic endpoint says, and its words from BuildKit's.
func FuzzRequest(f *testing.F) {
	f.Add("a:1", "host:1.2.3.4", "until", "24h", "[2/3] RUN x", []byte("out"))
	f.Add("", "h=[::1]", "id", "x", "[stage-0 1/1] \n", []byte{0xff})
	f.Fuzz(func(t *testing.T, tag, host, key, value, name string, out []byte) {
		hosts, _ := extraHosts([]string{host}, "172.17.0.1")
		solveRequest(model.BuildRequest{Source: model.BuildSource{Tags: []string{tag}}, Options: model.BuildOptions{ExtraHosts: hosts}, Remote: host})
		pruneRequest(model.BuildPruneOptions{Filters: model.Filters{key: {value}}}, time.Unix(0, 0))
		w := newClassicWatcher(func(model.BuildMessage) error { return nil })
		w.status(&controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{{Digest: key, Name: name, Cached: true}}, Logs: []*controlapi.VertexLog{{Vertex: key, Msg: out}}})
	})
}
