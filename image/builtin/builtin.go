// Package builtin holds the images that come with Shoal: OCI archives made from the project's own small programs by
// cmd/build-images and embedded in the daemon, so that a first container needs no network. It must not know the store;
// the image room loads an archive when its name is first asked for and nothing else has that name.
package builtin

import (
	"embed"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// The README keeps this package compiling before the archives are made.
//
//go:embed archives
var archives embed.FS

const (
	dir    = "archives"
	suffix = ".oci.tar"
)

// Names lists the built-in images: "hello", "toolbox", "whoami". It is empty when the binary was built without them.
func Names() []string {
	var out []string
	entries, _ := fs.ReadDir(archives, dir) // the directory is embedded
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Open gives the OCI archive of a built-in image.
func Open(name string) (io.ReadCloser, error) {
	f, err := archives.Open(dir + "/" + name + suffix)
	if err != nil {
		return nil, errs.New(errs.NotFound, "no built-in image %q; there are: %s", name, strings.Join(Names(), ", "))
	}
	return f, nil
}

// NameFor says which built-in image a reference means: "hello", "hello:latest", "docker.io/library/hello" and
// "shoal/hello" all mean hello. A digest or another tag means none.
func NameFor(ref string) (string, bool) {
	r, err := model.ParseReference(ref)
	if err != nil || r.Domain != model.DefaultDomain || r.Tag != model.DefaultTag || r.Digest != "" {
		return "", false
	}
	for _, prefix := range []string{"library/", "shoal/"} {
		if name, ok := strings.CutPrefix(r.Path, prefix); ok && slices.Contains(Names(), name) {
			return name, true
		}
	}
	return "", false
}
