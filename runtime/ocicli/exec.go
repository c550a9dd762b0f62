package ocicli

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/container"
)

type execFlags struct {
	opts               container.ExecOptions
	process, user, cwd string
	apparmor, label    string
	tty, detach, noNew bool
	env, caps, groups  stringsFlag
}

func (c *command) exec(args []string) (int, error) {
	var o execFlags
	var group string
	f := flags("exec")
	launchFlags(f, &o.opts.Launch)
	for _, name := range []string{"process", "p"} {
		f.StringVar(&o.process, name, "", "")
	}
	for _, name := range []string{"user", "u"} {
		f.StringVar(&o.user, name, "", "")
	}
	for _, name := range []string{"env", "e"} {
		f.Var(&o.env, name, "")
	}
	for _, name := range []string{"cap", "c"} {
		f.Var(&o.caps, name, "")
	}
	for _, name := range []string{"additional-gids", "g"} {
		f.Var(&o.groups, name, "")
	}
	for _, name := range []string{"tty", "t"} {
		f.BoolVar(&o.tty, name, false, "")
	}
	for _, name := range []string{"detach", "d"} {
		f.BoolVar(&o.detach, name, false, "")
	}
	f.StringVar(&o.cwd, "cwd", "", "")
	f.StringVar(&o.apparmor, "apparmor", "", "")
	f.StringVar(&o.label, "process-label", "", "")
	f.BoolVar(&o.noNew, "no-new-privs", false, "")
	f.BoolVar(&o.opts.Force, "ignore-paused", false, "")
	f.StringVar(&group, "cgroup", "", "")
	rest, err := parse(f, args, 1, -1, "[--tty] [--user UID[:GID]] [--cwd DIR] [--env K=V] [--cap CAP] [--detach] [--console-socket SOCKET] [--pid-file FILE] ID COMMAND [ARG...] | --process FILE ID")
	if err != nil {
		return 255, err
	}
	if group != "" {
		return 255, errs.New(errs.Unsupported, "exec --cgroup %s: a further process always runs in the container's own cgroup", group)
	}
	if err := checkPreserved(o.opts.PreserveFDs); err != nil {
		return 255, err
	}
	if o.opts.Process, err = c.execProcess(&o, rest); err != nil {
		return 255, err
	}
	if err := checkConsole(o.opts.Process.Terminal, o.detach, o.opts.ConsoleSocket); err != nil {
		return 255, err
	}
	return c.runExec(rest[0], &o)
}

func (c *command) runExec(id string, o *execFlags) (int, error) {
	var watch *foreground
	if !o.detach {
		watch = watchSignals()
		defer watch.stop()
	}
	p, err := c.rt.Exec(id, o.opts)
	if err != nil {
		return 255, err
	}
	defer p.Close()
	if o.detach {
		return 0, nil
	}
	return watch.wait(p)
}

// execProcess is the process of --process, or the container's own changed by the flags.
func (c *command) execProcess(o *execFlags, rest []string) (*specs.Process, error) {
	if o.process != "" {
		data, err := os.ReadFile(o.process)
		if err != nil {
			return nil, errs.Wrap(err, "exec: read --process")
		}
		var p specs.Process
		if err := json.Unmarshal(data, &p); err != nil {
			return nil, errs.New(errs.Invalid, "exec: --process %s: %w", o.process, err)
		}
		return &p, nil
	}
	p, err := c.rt.ExecProcess(rest[0])
	if err != nil {
		return nil, err
	}
	if len(rest) < 2 {
		return nil, errs.New(errs.Invalid, "exec: no command is given")
	}
	p.Args = rest[1:]
	p.Terminal = o.tty
	p.Env = append(p.Env, o.env...)
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	if o.apparmor != "" {
		p.ApparmorProfile = o.apparmor
	}
	if o.label != "" {
		p.SelinuxLabel = o.label
	}
	p.NoNewPrivileges = p.NoNewPrivileges || o.noNew
	if err := setUser(p, o.user, o.groups); err != nil {
		return nil, err
	}
	addCaps(p, o.caps)
	return p, nil
}

func setUser(p *specs.Process, user string, groups []string) error {
	if user != "" {
		uid, gid, both := strings.Cut(user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err == nil {
			p.User.UID = uint32(n)
			if both {
				n, err = strconv.ParseUint(gid, 10, 32)
				p.User.GID = uint32(n)
			}
		}
		if err != nil {
			return errs.New(errs.Invalid, "exec: --user %q is not UID[:GID] in numbers", user)
		}
	}
	for _, g := range groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return errs.New(errs.Invalid, "exec: --additional-gids %q is not a number", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(n))
	}
	return nil
}

func addCaps(p *specs.Process, names []string) {
	if len(names) == 0 {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	c := p.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*set = append(append([]string(nil), *set...), names...)
	}
	if p.User.UID != 0 { // only so do they reach a program of an ordinary user
		c.Inheritable, c.Ambient = append(c.Inheritable, names...), append(c.Ambient, names...)
	}
}
