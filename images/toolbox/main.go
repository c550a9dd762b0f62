// Command toolbox is the program of the built-in image "toolbox": a shell and the small tools that one looks around with,
// in one static binary that does what the name says by which it is called. It uses u-root's tools and mvdan's shell where
// they exist and small ones of its own for the rest. It must not try to be complete: what a flag does not do it refuses.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// call is one invocation of a tool.
type call struct {
	name string
	args []string
	in   io.Reader
	out  io.Writer
	err  io.Writer
}

// tool does the work. An error is printed with the tool's name in front; status is the exit code when it is not nil.
type tool func(c *call) error

// status is an exit code without a message.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func main() {
	name := strings.TrimPrefix(filepath.Base(os.Args[0]), "-")
	args := os.Args[1:]
	if lookup(name) == nil {
		if len(args) == 0 || args[0] == "--list" || args[0] == "--help" {
			os.Stdout.WriteString(strings.Join(names(), " ") + "\n")
			return
		}
		name, args = filepath.Base(args[0]), args[1:]
	}
	os.Exit(run(name, args))
}

func run(name string, args []string) int {
	t := lookup(name)
	if t == nil {
		fmt.Fprintf(os.Stderr, "%s: not in the toolbox; it has: %s\n", name, strings.Join(names(), " "))
		return 127
	}
	c := &call{name, args, os.Stdin, os.Stdout, os.Stderr}
	err := t(c)
	var code status
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, syscall.EPIPE):
		return 128 + int(syscall.SIGPIPE)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return 1
}

// tables are the tools by file; a function, so that nothing is built before it is needed.
func tables() []map[string]tool {
	return []map[string]tool{coreTools(), textTools(), fileTools(), processTools(), networkTools(), shellTools()}
}

func lookup(name string) tool {
	for _, t := range tables() {
		if f := t[name]; f != nil {
			return f
		}
	}
	return nil
}

func names() []string {
	var out []string
	for _, t := range tables() {
		for name := range t {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// options splits single-letter flags from the rest, as getopt does: "ab:c" knows -a, -b VALUE and -c, in any place before
// "--". A number flag such as -5 is read as the flag numbered, when that is not 0.
func (c *call) options(known string, numbered byte) (map[byte]string, []string, error) {
	flags := map[byte]string{}
	var rest []string
	for i := 0; i < len(c.args); i++ {
		a := c.args[i]
		if a == "--" {
			return flags, append(rest, c.args[i+1:]...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		if numbered != 0 && strings.Trim(a[1:], "0123456789") == "" {
			flags[numbered] = a[1:]
			continue
		}
		for j := 1; j < len(a); j++ {
			at := strings.IndexByte(known, a[j])
			if at < 0 || a[j] == ':' {
				return nil, nil, fmt.Errorf("unknown option -%c; known: -%s", a[j], strings.ReplaceAll(known, ":", ""))
			}
			if at+1 == len(known) || known[at+1] != ':' {
				flags[a[j]] = "true"
				continue
			}
			value := a[j+1:]
			if value == "" {
				if i++; i >= len(c.args) {
					return nil, nil, fmt.Errorf("option -%c needs a value", a[j])
				}
				value = c.args[i]
			}
			flags[a[j]] = value
			break
		}
	}
	return flags, rest, nil
}

// each calls f for every named file, or for standard input when none is named; "-" is standard input as well.
func (c *call) each(files []string, f func(name string, r io.Reader) error) error {
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, name := range files {
		if name == "-" {
			if err := f(name, c.in); err != nil {
				return err
			}
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		err = f(name, file)
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
