package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/builtin"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/runtime/spec"
)

// patience is how long one call of the runtime, or a container that should end, may take.
const patience = 20 * time.Second

// Outcomes of checks.
const (
	passed  = "pass"
	failed  = "FAIL"
	skipped = "skip"
)

// outcome is what a check found.
type outcome struct {
	Name    string `json:"name"`
	Result  string `json:"result"`
	Reason  string `json:"reason,omitempty"`
	Section string `json:"section"` // of the runtime specification
	Took    string `json:"took"`
}

// skip is the error of a check that cannot be made here.
type skip string

func (s skip) Error() string { return string(s) }

func runtimeValidate(fs *pflag.FlagSet) func(context.Context, []string, io.Writer) (int, error) {
	format := formatFlag(fs)
	only := fs.String("only", "", "Run only checks whose name holds this")
	global := fs.StringArray("runtime-flag", nil, "Flag to give the runtime in front of the verb")
	return func(ctx context.Context, args []string, out io.Writer) (int, error) {
		if err := checkFormat(*format); err != nil {
			return exitUsage, err
		}
		if os.Getuid() != 0 {
			return exitUsage, errs.New(errs.Forbidden, "runtime validate makes containers, which needs root")
		}
		path, err := exec.LookPath(args[0])
		if err != nil {
			return exitUsage, errs.New(errs.NotFound, "%w", err)
		}
		if path, err = filepath.Abs(path); err != nil {
			return exitUsage, err
		}
		t, err := newTrial(ctx, path, *global)
		if err != nil {
			return exitUsage, err
		}
		defer t.close()
		return t.all(ctx, *only, *format, out)
	}
}

// trial tries one runtime with a small root filesystem.
type trial struct {
	path   string
	global []string
	dir    string // bundles and the runtime's state
	root   string // the root filesystem, shared by all bundles
	live   []string
}

func newTrial(ctx context.Context, path string, global []string) (*trial, error) {
	t := &trial{path: path, global: global}
	var err error
	if t.dir, err = os.MkdirTemp("", "shoal-oci-"); err != nil {
		return nil, err
	}
	err = os.Chmod(t.dir, 0o711) // for users of a user namespace
	var f io.ReadCloser
	if err == nil {
		f, err = builtin.Open("toolbox")
	}
	if err == nil {
		archive := filepath.Join(t.dir, "toolbox.tar")
		var w *os.File
		if w, err = os.Create(archive); err == nil {
			_, err = io.Copy(w, f)
			w.Close()
		}
		f.Close()
		if err == nil {
			err = t.unpack(ctx, archive)
		}
	}
	if err != nil {
		t.close()
		return nil, errs.Wrap(err, "make a root filesystem of the built-in toolbox")
	}
	return t, nil
}

func (t *trial) unpack(ctx context.Context, archive string) error {
	l, err := openLayout(ctx, archive)
	if err != nil {
		return err
	}
	defer l.close()
	bundle := filepath.Join(t.dir, "base")
	t.root = filepath.Join(bundle, "rootfs")
	_, err = unpackImage(ctx, l, l.index.Manifests[0], bundle, "")
	return err
}

// close removes what the runtime left, too.
func (t *trial) close() {
	for _, id := range t.live {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		t.command(ctx, "delete", "--force", id).Run()
		cancel()
	}
	os.RemoveAll(t.dir)
}

func (t *trial) all(ctx context.Context, only, format string, out io.Writer) (int, error) {
	var list []outcome
	bad := 0
	for _, c := range checks() {
		if !strings.Contains(c.name, only) {
			continue
		}
		if ctx.Err() != nil {
			return exitUsage, ctx.Err()
		}
		start := time.Now()
		o := outcome{Name: c.name, Result: passed, Section: c.section}
		var s skip
		if err := c.try(ctx, t); errors.As(err, &s) {
			o.Result, o.Reason = skipped, err.Error()
		} else if err != nil {
			o.Result, o.Reason = failed, err.Error()
			bad++
		}
		o.Took = time.Since(start).Round(time.Millisecond).String()
		list = append(list, o)
		if format == "text" {
			fmt.Fprintf(out, "%s  %-28s %6s  %s\n", o.Result, o.Name, o.Took, strings.ReplaceAll(o.Reason, "\n", "\n      "))
		}
	}
	if len(list) == 0 {
		return exitUsage, errs.New(errs.Invalid, "no check has %q in its name", only)
	}
	code := exitSound
	if bad > 0 {
		code = exitUnsound
	}
	if format == "json" {
		return code, writeJSON(out, struct {
			Path   string    `json:"path"`
			Valid  bool      `json:"valid"`
			Checks []outcome `json:"checks"`
		}{t.path, bad == 0, list})
	}
	_, err := fmt.Fprintf(out, "%s: %d of %d checks failed\n", t.path, bad, len(list))
	return code, err
}

func (t *trial) command(ctx context.Context, args ...string) *exec.Cmd {
	all := append(append([]string{"--root", filepath.Join(t.dir, "state")}, t.global...), args...)
	c := exec.CommandContext(ctx, t.path, all...)
	c.Cancel = func() error { return c.Process.Signal(unix.SIGKILL) }
	c.WaitDelay = time.Second
	return c
}

// call runs a verb to its end. The output goes to files: a container that keeps them open must not hold us.
func (t *trial) call(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, errText bytes.Buffer
	c := t.command(ctx, args...)
	c.Stdout, c.Stderr = &out, &errText
	err := c.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: no end within %v", strings.Join(args, " "), patience)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return out.String(), fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(errText.String()))
	}
	return out.String(), nil
}

// refused wants a verb to fail.
func (t *trial) refused(ctx context.Context, what string, args ...string) error {
	if _, err := t.call(ctx, args...); err == nil {
		return fmt.Errorf("%s was not refused", what)
	} else if strings.Contains(err.Error(), "no end within") {
		return err
	}
	return nil
}

// container is one of the trial's.
type container struct {
	t       *trial
	id, dir string
}

// bundle writes a bundle whose program is a shell script.
func (t *trial) bundle(script string, change func(*specs.Spec)) (*container, error) {
	s := spec.Example()
	s.Version = "1.0.2" // what all runtimes know
	s.Process.Terminal, s.Process.Env = false, []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}
	s.Process.Args = []string{"sh", "-c", script}
	s.Root.Path = t.root
	s.Linux.Resources = nil
	c := &container{t: t, id: "shoal-oci-" + ids.Short(ids.New())}
	s.Linux.CgroupsPath = "/" + c.id
	c.dir = filepath.Join(t.dir, c.id)
	if err := os.Mkdir(c.dir, 0o711); err != nil {
		return nil, err
	}
	if change != nil {
		change(s)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return c, os.WriteFile(filepath.Join(c.dir, configFile), data, 0o644)
}

// create makes it, with its output in a file.
func (c *container) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := os.Create(filepath.Join(c.dir, "output"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := c.t.command(ctx, "create", "--bundle", c.dir, c.id)
	cmd.Stdout, cmd.Stderr = out, out
	c.t.live = append(c.t.live, c.id)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("create: %w: %s", err, c.output())
	}
	return nil
}

func (c *container) output() string {
	data, _ := os.ReadFile(filepath.Join(c.dir, "output"))
	return strings.TrimSpace(string(data))
}

func (c *container) state(ctx context.Context) (specs.State, error) {
	var s specs.State
	text, err := c.t.call(ctx, "state", c.id)
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

// ended waits for the container's process by its descriptor, and then for the runtime to say so.
func (c *container) ended(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
		n, perr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
		if n == 0 && perr == nil {
			return fmt.Errorf("the container did not end within %v", patience)
		}
	}
	s, err := c.state(ctx)
	if err == nil && s.Status != specs.StateStopped {
		err = fmt.Errorf("its process is gone, but its status is %q, not stopped", s.Status)
	}
	return err
}

// lives takes a container through its whole life and gives its output.
func (c *container) lives(ctx context.Context) (string, error) {
	if err := c.create(ctx); err != nil {
		return "", err
	}
	s, err := c.state(ctx)
	if err != nil {
		return "", err
	}
	if _, err := c.t.call(ctx, "start", c.id); err != nil {
		return "", err
	}
	if err := c.ended(ctx, s.Pid); err != nil {
		return "", err
	}
	out := c.output()
	_, err = c.t.call(ctx, "delete", c.id)
	return out, err
}

// output gives what a script prints in a container.
func (t *trial) output(ctx context.Context, script string, change func(*specs.Spec)) (string, error) {
	c, err := t.bundle(script, change)
	if err != nil {
		return "", err
	}
	return c.lives(ctx)
}
