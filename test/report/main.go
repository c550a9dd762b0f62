// Command report reads what `go test -json` says and prints what a person needs of it: a line for each package, all that a
// failed test said, and of each skipped test why, so that nothing is left out in silence. It ends with 1 when something failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is one line of `go test -json` (cmd/test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type test struct{ pkg, name string }

type report struct {
	out    io.Writer
	said   map[test][]string
	failed bool
	skips  []string
}

func main() {
	r := report{out: os.Stdout, said: map[test][]string{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if r.end() {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil && e.Action != "" {
			r.take(e)
		} else if len(line) > 0 {
			r.out.Write(line) // not of a test: of the build
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.said[t] = append(r.said[t], e.Output)
		return
	case "build-output":
		io.WriteString(r.out, e.Output)
		return
	case "build-fail":
		r.failed = true
		return
	case "skip":
		if e.Test != "" {
			r.skips = append(r.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(r.said[t])))
		}
	case "fail":
		r.failed = true
		if e.Test != "" {
			fmt.Fprint(r.out, strings.Join(r.said[t], ""))
		}
	case "pass":
	default:
		return
	}
	if e.Test == "" {
		r.packageEnded(e, r.said[t])
	}
	delete(r.said, t)
}

// packageEnded prints what the package's end said, and on a failure all that no test said: a panic, or leftovers.
func (r *report) packageEnded(e event, said []string) {
	for t, lines := range r.said { // tests without an end, when the program died
		if t.pkg == e.Package && t.name != "" {
			if e.Action == "fail" {
				fmt.Fprint(r.out, strings.Join(lines, ""))
			}
			delete(r.said, t)
		}
	}
	for i, line := range said {
		if e.Action == "fail" || i == len(said)-1 && !strings.Contains(line, "[no test files]") {
			io.WriteString(r.out, line)
		}
	}
}

// reason is what a test said of itself, in one line.
func reason(said []string) string {
	var words []string
	for _, line := range said {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		words = append(words, line)
	}
	text := strings.Join(words, " ")
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return text
}

// end prints the skipped tests and says whether something failed.
func (r *report) end() bool {
	slices.Sort(r.skips)
	for _, s := range r.skips {
		fmt.Fprintln(r.out, "SKIPPED:", s)
	}
	return r.failed
}
