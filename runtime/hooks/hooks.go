// Package hooks runs the programs that an OCI configuration names for the steps of a container's life. Each gets the
// container's state as JSON on standard input. It must not decide when a hook is due.
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

// maxOutput bounds how much of a failed hook's output the error carries.
const maxOutput = 64 << 10

// Run runs the hooks of one step in order and stops at the first failure, which is described with the hook's output.
func Run(step string, list []specs.Hook, state *specs.State) error {
	if len(list) == 0 {
		return nil
	}
	data, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode the state for %s hooks: %w", step, err)
	}
	for i := range list {
		if err := run(&list[i], data); err != nil {
			return errs.Wrap(err, "%s hook #%d (%s)", step, i, list[i].Path)
		}
	}
	return nil
}

// RunAll is Run for the steps after which the life goes on: every hook runs, failures are returned together.
func RunAll(step string, list []specs.Hook, state *specs.State) error {
	var all []error
	for i := range list {
		all = append(all, Run(step, list[i:i+1], state))
	}
	return errors.Join(all...)
}

func run(h *specs.Hook, state []byte) error {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if h.Timeout != nil {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
	}
	defer cancel()
	var out tail
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // the specification: no environment of the runtime's
	}
	cmd.Stdin = bytes.NewReader(state)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // children that keep the pipes open do not hold up the container
	err := cmd.Run()
	if ctx.Err() != nil {
		return errs.New(errs.Deadline, "did not end within its timeout of %d s and was killed%s", *h.Timeout, out.said())
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, out.said())
	}
	return nil
}

// tail keeps the last of what a hook prints.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - maxOutput; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) said() string {
	if s := strings.TrimSpace(string(t.b)); s != "" {
		return "; it printed: " + s
	}
	return ""
}
