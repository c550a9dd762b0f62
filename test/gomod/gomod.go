// Package gomod fetches the sources of Go modules, for tests that build other projects' programs.
package gomod

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// Module is what was fetched.
type Module struct {
	Dir string // in the module cache, where nothing can be written
	Sum string // as in go.sum
}

// Download gives PATH@VERSION, or PATH in the version that the module in dir asks for, fetched where it is not yet. env is added
// to the environment.
func Download(ctx context.Context, dir, module string, env ...string) (m Module, err error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("fetch %s: %w: %s%s", module, err, out, said.Bytes())
	}
	if err := json.Unmarshal(out, &m); err != nil {
		return m, fmt.Errorf("fetch %s: %w", module, err)
	}
	return m, nil
}
