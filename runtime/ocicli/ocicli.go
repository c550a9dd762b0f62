// Package ocicli is the OCI runtime command line as runc's users and callers (containerd, Docker, podman, conmon) know
// it: the same verbs, flags, exit codes and log format. It parses, calls runtime/container and prints; it decides
// nothing about containers.
package ocicli

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/runtime/container"
)

// globals are the flags in front of the verb.
type globals struct {
	root      string
	log       string
	logFormat string
	debug     bool
	systemd   bool
	rootless  string
}

// command is one invocation.
type command struct {
	globals
	rt  *container.Runtime
	out io.Writer
}

type verb struct {
	name, args, help string
	run              func(c *command, args []string) (int, error)
}

func verbs() []verb {
	return []verb{
		{"create", "[flags] ID", "create a container from a bundle; its program waits for start", (*command).create},
		{"start", "ID", "run the program of a created container", (*command).start},
		{"run", "[flags] ID", "create and start a container; wait for its end unless --detach", (*command).run},
		{"state", "ID", "print the state of a container as JSON", (*command).state},
		{"kill", "[--all] ID [SIGNAL]", "send a signal (SIGTERM) to a container's init", (*command).kill},
		{"delete", "[--force] ID", "remove a stopped container", (*command).remove},
		{"exec", "[flags] ID COMMAND [ARG...] | --process FILE ID", "run a further process in a container", (*command).exec},
		{"ps", "[--format table|json] ID [PS-OPTION...]", "list the processes of a container", (*command).ps},
		{"list", "[--format table|json] [--quiet]", "list the containers below --root", (*command).list},
		{"pause", "ID", "freeze all processes of a container", (*command).pause},
		{"resume", "ID", "let a paused container go on", (*command).resume},
		{"update", "[flags] ID", "change the limits of a container", (*command).update},
		{"events", "[--stats] [--interval D] ID", "print statistics and out-of-memory events as JSON lines", (*command).events},
		{"features", "", "print what this runtime supports as JSON", (*command).features},
		{"spec", "[--bundle DIR] [--rootless]", "write an example config.json", (*command).spec},
		{"checkpoint", "", "not supported: needs the program criu", refuseCheckpoint},
		{"restore", "", "not supported: needs the program criu", refuseCheckpoint},
	}
}

func refuseCheckpoint(*command, []string) (int, error) {
	return 1, errs.New(errs.Unsupported, "checkpoint and restore are not supported by this runtime yet; they need the program criu")
}

const usageHead = `shoal-runtime runs containers from OCI bundles.

usage: shoal-runtime [global flags] VERB [flags] ARGUMENTS

`

// Usage writes what shoal-runtime --help prints.
func Usage(w io.Writer) {
	fmt.Fprint(w, usageHead)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-10s %s\n  %-10s %s\n", v.name, v.args, "", v.help)
	}
	fmt.Fprint(w, "\nglobal flags: --root DIR  --log FILE  --log-format text|json  --debug  --rootless auto|true|false  --version\n"+
		"VERB --help describes a verb and its flags.\n")
}

// Main runs the command line and returns the exit code.
func Main(args []string) int {
	c := &command{out: os.Stdout}
	code, err := c.dispatch(args)
	if err != nil {
		c.fail(err)
		if code == 0 {
			code = 1
		}
	}
	return code
}

func (c *command) dispatch(args []string) (int, error) {
	f := flag.NewFlagSet("shoal-runtime", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&c.root, "root", "", "")
	f.StringVar(&c.log, "log", "", "")
	f.StringVar(&c.logFormat, "log-format", "text", "")
	f.BoolVar(&c.debug, "debug", false, "")
	f.BoolVar(&c.systemd, "systemd-cgroup", false, "")
	f.StringVar(&c.rootless, "rootless", "auto", "")
	f.String("criu", "", "") // for checkpoint and restore, which say what they say
	askVersion := f.Bool("version", false, "")
	f.BoolVar(askVersion, "v", false, "")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			Usage(c.out)
			return 0, nil
		}
		return 1, errs.New(errs.Invalid, "%w (see shoal-runtime --help)", err)
	}
	if *askVersion {
		fmt.Fprintf(c.out, "shoal-runtime version %s\ncommit: %s\nspec: %s\n", version.Version, version.GitCommit, specs.Version)
		return 0, nil
	}
	if err := c.check(); err != nil {
		return 1, err
	}
	rest := f.Args()
	if len(rest) == 0 || rest[0] == "help" {
		Usage(c.out)
		return 0, nil
	}
	c.rt = container.Open(c.root)
	c.rt.Warn = func(m string) { c.record("warning", m) }
	for _, v := range verbs() {
		if v.name == rest[0] {
			code, err := v.run(c, rest[1:])
			var asked *helpAsked
			if errors.As(err, &asked) {
				c.help(v, asked.flags)
				return 0, nil
			}
			return code, err
		}
	}
	return 1, errs.New(errs.Invalid, "%q is not a verb of shoal-runtime (see shoal-runtime --help)", rest[0])
}

func (c *command) check() error {
	switch c.logFormat {
	case "text", "json":
	default:
		return errs.New(errs.Invalid, "--log-format %q is neither text nor json", c.logFormat)
	}
	if c.systemd {
		if _, err := os.Stat("/run/systemd/system"); err != nil {
			return errs.New(errs.Unsupported, "--systemd-cgroup: systemd does not run on this host; leave the flag out to use cgroup files directly")
		}
		return errs.New(errs.Unsupported, "--systemd-cgroup: this runtime manages cgroups by their files only; leave the flag out and give linux.cgroupsPath as a path")
	}
	if c.root == "" {
		c.root = defaultRoot()
	}
	var err error
	if c.root, err = filepath.Abs(c.root); err != nil {
		return err
	}
	return nil
}

func defaultRoot() string {
	if os.Geteuid() != 0 {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return filepath.Join(dir, "shoal-runtime")
		}
	}
	return "/run/shoal-runtime"
}

func (c *command) isRootless() bool {
	return c.rootless == "true" || c.rootless == "auto" && os.Geteuid() != 0
}

// fail tells the error to the log, where callers look for it, and to standard error.
func (c *command) fail(err error) {
	c.record("error", err.Error())
	fmt.Fprintf(os.Stderr, "shoal-runtime: %s\n", err)
}

// record appends a line to the log file.
func (c *command) record(level, message string) {
	now := time.Now().Format(time.RFC3339)
	if c.log == "" {
		if level != "error" {
			fmt.Fprintf(os.Stderr, "shoal-runtime: %s: %s\n", level, message)
		}
		return
	}
	f, err := os.OpenFile(c.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		fmt.Fprintf(os.Stderr, "shoal-runtime: open --log: %s\n", err)
		return
	}
	defer f.Close()
	line := []byte(fmt.Sprintf("time=%q level=%s msg=%q\n", now, level, message))
	if c.logFormat == "json" {
		line, _ = json.Marshal(map[string]string{"level": level, "msg": message, "time": now})
		line = append(line, '\n')
	}
	f.Write(line)
}

// parse reads a verb's flags; min and max bound the arguments after them (max < 0: any number).
func parse(f *flag.FlagSet, args []string, least, most int, usage string) ([]string, error) {
	f.SetOutput(io.Discard)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, &helpAsked{f}
		}
		return nil, errs.New(errs.Invalid, "%s: %w; usage: shoal-runtime %s %s", f.Name(), err, f.Name(), usage)
	}
	rest := f.Args()
	if len(rest) < least || most >= 0 && len(rest) > most {
		return nil, errs.New(errs.Invalid, "%s: %d arguments given; usage: shoal-runtime %s %s", f.Name(), len(rest), f.Name(), usage)
	}
	return rest, nil
}

func flags(name string) *flag.FlagSet { return flag.NewFlagSet(name, flag.ContinueOnError) }

// stringsFlag collects a flag given several times.
type stringsFlag []string

func (s *stringsFlag) String() string { return strings.Join(*s, ",") }

// Set adds one value.
func (s *stringsFlag) Set(v string) error { *s = append(*s, v); return nil }

func (c *command) printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = c.out.Write(append(data, '\n'))
	return err
}
