package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/test/gomod"
)

const (
	tools       = "github.com/opencontainers/runtime-tools"
	insideCheck = "runtimetest" // the program that the others run inside containers
)

// Programs are the built validation programs in one directory, ready to be run there.
type Programs struct {
	Dir   string
	Names []string
}

// Build builds the validation programs into dir. source is the directory with their go.mod (oci): they are
// of 2018 and want modules that nothing else here may depend on.
func Build(ctx context.Context, source, dir string) (*Programs, error) {
	archive, err := RootArchive(ctx, source)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(archive)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(archive)), data, 0o644); err != nil {
		return nil, err
	}
	if _, err := goTool(ctx, source, "build", "-o", dir+"/", tools+"/cmd/"+insideCheck, tools+"/validation/..."); err != nil {
		return nil, err
	}
	list, err := goTool(ctx, source, "list", "-f", "{{if eq .Name \"main\"}}{{.ImportPath}}{{end}}", tools+"/validation/...")
	if err != nil {
		return nil, err
	}
	p := &Programs{Dir: dir}
	for _, path := range strings.Fields(list) {
		p.Names = append(p.Names, filepath.Base(path))
	}
	slices.Sort(p.Names)
	return p, nil
}

// RootArchive is the path of the root file system that comes with the validation programs. source is as for Build.
func RootArchive(ctx context.Context, source string) (string, error) {
	module, err := gomod.Download(ctx, source, tools, ownModule...)
	if err != nil {
		return "", err
	}
	path := filepath.Join(module.Dir, "rootfs-"+runtime.GOARCH+".tar.gz")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the validation programs bring no root file system for %s: %w", runtime.GOARCH, err)
	}
	return path, nil
}

// ownModule makes the go tool take the module of the directory it works in as it is.
var ownModule = []string{"CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off"}

func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), ownModule...)
	var errText strings.Builder
	cmd.Stderr = &errText
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s in %s: %w\n%s", args[0], dir, err, errText.String())
	}
	return strings.TrimSpace(string(out)), nil
}
