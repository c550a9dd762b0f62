package ocicli

import (
	"flag"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/container"
)

type createFlags struct {
	opts         container.CreateOptions
	detach, keep bool
	noSubreaper  bool
}

func launchFlags(f *flag.FlagSet, l *container.Launch) {
	f.StringVar(&l.ConsoleSocket, "console-socket", "", "")
	f.StringVar(&l.PidfdSocket, "pidfd-socket", "", "")
	f.StringVar(&l.PidFile, "pid-file", "", "")
	f.IntVar(&l.PreserveFDs, "preserve-fds", 0, "")
	l.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
}

func (c *command) createOptions(name string, args []string) (*createFlags, error) {
	c.rt.Prefetch()
	var o createFlags
	f := flags(name)
	f.StringVar(&o.opts.Bundle, "bundle", "", "")
	f.StringVar(&o.opts.Bundle, "b", "", "")
	f.BoolVar(&o.opts.NoPivot, "no-pivot", false, "")
	f.BoolVar(&o.opts.NoNewKeyring, "no-new-keyring", false, "")
	launchFlags(f, &o.opts.Launch)
	if name == "run" {
		f.BoolVar(&o.detach, "detach", false, "")
		f.BoolVar(&o.detach, "d", false, "")
		f.BoolVar(&o.keep, "keep", false, "")
		f.BoolVar(&o.noSubreaper, "no-subreaper", false, "")
	}
	rest, err := parse(f, args, 1, 1, "[--bundle DIR] [--console-socket SOCKET] [--pid-file FILE] [--preserve-fds N] [--no-pivot] [--no-new-keyring] ID")
	if err != nil {
		return nil, err
	}
	o.opts.ID = rest[0]
	o.opts.Rootless = c.isRootless()
	if o.opts.Bundle == "" {
		o.opts.Bundle = "."
	}
	if err := checkPreserved(o.opts.PreserveFDs); err != nil {
		return nil, err
	}
	// Read early: whether a terminal is wanted decides what the flags must be.
	o.opts.Spec, o.opts.Config, err = container.ReadBundle(o.opts.Bundle)
	if err != nil {
		return nil, err
	}
	return &o, nil
}

func checkPreserved(n int) error {
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return errs.New(errs.Invalid, "--preserve-fds %d: file descriptor %d is not open", n, fd)
		}
	}
	return nil
}

func wantsTerminal(o *createFlags) bool {
	return o.opts.Spec.Process != nil && o.opts.Spec.Process.Terminal
}

func (c *command) create(args []string) (int, error) {
	o, err := c.createOptions("create", args)
	if err != nil {
		return 1, err
	}
	if err := checkConsole(wantsTerminal(o), true, o.opts.ConsoleSocket); err != nil {
		return 1, err
	}
	p, err := c.rt.Create(o.opts)
	if err != nil {
		return 1, err
	}
	p.Close()
	return 0, nil
}

func checkConsole(terminal, detached bool, socket string) error {
	switch {
	case terminal && detached && socket == "":
		return errs.New(errs.Invalid, "the process asks for a terminal: give --console-socket to receive it")
	case !terminal && socket != "":
		return errs.New(errs.Invalid, "--console-socket is given, but the process asks for no terminal (process.terminal)")
	}
	return nil
}

func (c *command) start(args []string) (int, error) {
	rest, err := parse(flags("start"), args, 1, 1, "ID")
	if err != nil {
		return 1, err
	}
	return 0, c.rt.Start(rest[0])
}

func (c *command) run(args []string) (int, error) {
	o, err := c.createOptions("run", args)
	if err != nil {
		return 1, err
	}
	if err := checkConsole(wantsTerminal(o), o.detach, o.opts.ConsoleSocket); err != nil {
		return 1, err
	}
	if !o.detach && !o.noSubreaper {
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	var watch *foreground
	if !o.detach {
		watch = watchSignals()
		defer watch.stop()
	}
	p, err := c.rt.Run(o.opts)
	if err != nil {
		return 1, err
	}
	defer p.Close()
	if o.detach {
		return 0, nil
	}
	code, err := watch.wait(p)
	if o.keep {
		return code, err
	}
	if derr := c.rt.Delete(o.opts.ID, true); err == nil {
		err = derr
	}
	return code, err
}
