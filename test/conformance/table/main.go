// Command table runs the validation programs with every OCI runtime of this host and writes what they say, side by side,
// into docs/conformance.md, between its two marks. Run it from the root of the repository, as root, after make build. It
// judges nothing: the reasons come from expected.txt.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoalhq/shoal/test/conformance"
)

const from, to = "<!-- table: made by go run ./test/conformance/table -->\n", "<!-- end of table -->\n"

func main() {
	bin := flag.String("runtime", "bin/shoal-runtime", "Shoal's runtime")
	doc := flag.String("o", "docs/conformance.md", "the file with the marks; - prints")
	part := flag.String("only", "", "programs whose names hold this")
	flag.Parse()
	if err := run(*bin, *doc, *part); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(bin, doc, part string) error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	expected, err := conformance.ReadExpected("test/conformance/expected.txt")
	if err != nil {
		return err
	}
	programs, err := conformance.Build(ctx, "test/conformance/oci", dir)
	if err != nil {
		return err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	runtimes := conformance.Installed(bin)
	names := programs.Select(part)
	all := make([][]conformance.Result, len(runtimes))
	for i, rt := range runtimes {
		fmt.Fprintln(os.Stderr, "running with", rt.Name)
		if all[i], err = rt.Run(ctx, programs, names, dir); err != nil {
			return err
		}
		for _, r := range all[i] {
			for _, why := range r.Why {
				fmt.Fprintf(os.Stderr, "%s: %s: %.300s\n", rt.Name, r.Program, why)
			}
		}
	}
	return write(doc, render(runtimes, names, all, expected))
}

func render(runtimes []conformance.Runtime, names []string, all [][]conformance.Result, expected map[string]conformance.Expectation) string {
	var b strings.Builder
	b.WriteString("| program |")
	for _, rt := range runtimes {
		b.WriteString(" " + rt.Version() + " |")
	}
	b.WriteString(" why shoal-runtime does not pass |\n|---|" + strings.Repeat("---|", len(runtimes)+1) + "\n")
	sums := make([]int, len(runtimes))
	for n, name := range names {
		b.WriteString("| " + name + " |")
		for i := range runtimes {
			r := all[i][n]
			switch {
			case r.Verdict == conformance.Pass:
				sums[i]++
				b.WriteString(" pass |")
			case r.Total > 0:
				fmt.Fprintf(&b, " **fail** (%d of %d) |", r.Passed, r.Total)
			default:
				b.WriteString(" **fail** |")
			}
		}
		reason := ""
		if all[0][n].Verdict == conformance.Fail {
			reason = expected[name].Reason
		}
		b.WriteString(" " + reason + " |\n")
	}
	b.WriteString("| **programs passed** |")
	for _, s := range sums {
		fmt.Fprintf(&b, " **%d of %d** |", s, len(names))
	}
	b.WriteString(" |\n")
	return b.String()
}

func write(doc, table string) error {
	if doc == "-" {
		fmt.Print(table)
		return nil
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(text, []byte(from))
	_, tail, ok2 := bytes.Cut(rest, []byte(to))
	if !ok || !ok2 {
		return fmt.Errorf("%s has not the two marks %q and %q", doc, from, to)
	}
	return os.WriteFile(doc, []byte(string(head)+from+table+to+string(tail)), 0o644)
}
