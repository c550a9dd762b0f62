package ocicli

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

func (c *command) state(args []string) (int, error) {
	rest, err := parse(flags("state"), args, 1, 1, "ID")
	if err != nil {
		return 1, err
	}
	s, err := c.rt.State(rest[0])
	if err != nil {
		return 1, err
	}
	return 0, c.printJSON(s)
}

func (c *command) kill(args []string) (int, error) {
	f := flags("kill")
	all := f.Bool("all", false, "")
	f.BoolVar(all, "a", false, "")
	rest, err := parse(f, args, 1, 2, "[--all] ID [SIGNAL]")
	if err != nil {
		return 1, err
	}
	sig := unix.SIGTERM
	if len(rest) == 2 {
		if sig, err = parseSignal(rest[1]); err != nil {
			return 1, err
		}
	}
	return 0, c.rt.Kill(rest[0], sig, *all)
}

// parseSignal takes "9", "KILL", "SIGKILL", "RTMIN+3".
func parseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if s := unix.SignalNum("SIG" + name); s != 0 {
		return s, nil
	}
	for base, first := range map[string]int{"RTMIN": 34, "RTMAX": 64} {
		if rest, ok := strings.CutPrefix(name, base); ok {
			n := 0
			if rest != "" {
				var err error
				if n, err = strconv.Atoi(rest); err != nil {
					break
				}
			}
			if n += first; n >= 34 && n <= 64 {
				return unix.Signal(n), nil
			}
		}
	}
	return 0, errs.New(errs.Invalid, "%q is not a signal: give a name such as TERM or a number up to 64", text)
}

func (c *command) remove(args []string) (int, error) {
	f := flags("delete")
	force := f.Bool("force", false, "")
	f.BoolVar(force, "f", false, "")
	rest, err := parse(f, args, 1, 1, "[--force] ID")
	if err != nil {
		return 1, err
	}
	return 0, c.rt.Delete(rest[0], *force)
}

func (c *command) pause(args []string) (int, error) {
	rest, err := parse(flags("pause"), args, 1, 1, "ID")
	if err != nil {
		return 1, err
	}
	return 0, c.rt.Pause(rest[0])
}

func (c *command) resume(args []string) (int, error) {
	rest, err := parse(flags("resume"), args, 1, 1, "ID")
	if err != nil {
		return 1, err
	}
	return 0, c.rt.Resume(rest[0])
}

func (c *command) list(args []string) (int, error) {
	f := flags("list")
	format := f.String("format", "table", "")
	f.StringVar(format, "f", "table", "")
	quiet := f.Bool("quiet", false, "")
	f.BoolVar(quiet, "q", false, "")
	if _, err := parse(f, args, 0, 0, "[--format table|json] [--quiet]"); err != nil {
		return 1, err
	}
	list, err := c.rt.List()
	code := 0
	if err != nil {
		c.fail(err) // what could be read is listed all the same
		code = 1
	}
	switch {
	case *quiet:
		for _, s := range list {
			fmt.Fprintln(c.out, s.ID)
		}
	case *format == "json":
		if list == nil {
			fmt.Fprintln(c.out, "null")
			return code, nil
		}
		return code, c.printJSON(list)
	case *format == "table":
		w := tabwriter.NewWriter(c.out, 12, 1, 3, ' ', 0)
		fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
		for _, s := range list {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return code, w.Flush()
	default:
		return 1, errs.New(errs.Invalid, "list: --format %q is neither table nor json", *format)
	}
	return code, nil
}

// ps prints the pids, or what the host's ps says of them.
func (c *command) ps(args []string) (int, error) {
	f := flags("ps")
	format := f.String("format", "table", "")
	f.StringVar(format, "f", "table", "")
	rest, err := parse(f, args, 1, -1, "[--format table|json] ID [PS-OPTION...]")
	if err != nil {
		return 1, err
	}
	pids, err := c.rt.Pids(rest[0])
	if err != nil {
		return 1, err
	}
	switch *format {
	case "json":
		if pids == nil {
			pids = []int{}
		}
		return 0, c.printJSON(pids)
	case "table":
		return 0, c.psTable(pids, rest[1:])
	}
	return 1, errs.New(errs.Invalid, "ps: --format %q is neither table nor json", *format)
}

func (c *command) psTable(pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).Output()
	if err != nil {
		return errs.New(errs.Unsupported, "ps %s: %w; use --format json when the host has no ps", strings.Join(options, " "), err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errs.New(errs.Invalid, "ps %s prints no PID column", strings.Join(options, " "))
	}
	fmt.Fprintln(c.out, lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprintln(c.out, line)
		}
	}
	return nil
}

func readFileOrStdin(name string) ([]byte, error) {
	if name == "-" {
		return readAll(os.Stdin)
	}
	return os.ReadFile(name)
}
