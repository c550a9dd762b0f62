// Package oci is the tools for the formats of the Open Container Initiative: it validates images, bundles and runtimes,
// unpacks images to bundles and generates runtime configurations. It works on files and programs only: it must not talk
// to the daemon or know its store.
package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plural"
)

// Exit codes: what was looked at is sound, it is not, or it could not be looked at.
const (
	exitSound   = 0
	exitUnsound = 1
	exitUsage   = 2
)

// tool is one verb.
type tool struct {
	words string // "image validate"
	args  string
	short string
	make  func(fs *pflag.FlagSet) func(ctx context.Context, args []string, out io.Writer) (int, error)
}

func tools() []tool {
	return []tool{
		{"image validate", "PATH", "Check an OCI image layout, a directory or an archive of one", imageValidate},
		{"image unpack", "PATH BUNDLE", "Make a bundle, root filesystem and config.json, of an image in an OCI layout", imageUnpack},
		{"bundle validate", "BUNDLE", "Check a bundle: its config.json, and what that names on this machine", bundleValidate},
		{"runtime validate", "PATH", "Try an OCI runtime: life cycle, isolation, limits, hooks, refusals", runtimeValidate},
		{"spec generate", "[-- COMMAND [ARG...]]", "Write a config.json made from options", specGenerate},
	}
}

// Main runs `oci` with its arguments and gives the exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	code, err := run(ctx, args, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal oci:", err)
	}
	return code
}

func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	if len(args) > 1 {
		for _, t := range tools() {
			if t.words == args[0]+" "+args[1] {
				return t.run(ctx, args[2:], out)
			}
		}
	}
	help := len(args) == 0 || len(args) == 1 && (args[0] == "--help" || args[0] == "-h")
	text := "Usage: shoal oci COMMAND\n\nTools for OCI images, bundles, runtimes and configurations\n\nCommands:\n"
	for _, t := range tools() {
		text += fmt.Sprintf("  %-18s %s\n", t.words, t.short)
	}
	text += "\nThey exit with 0 when all is well, 1 when something is wrong with what they looked at, 2 when they could not look.\nRun 'shoal oci COMMAND --help' for more information.\n"
	if help {
		_, err := io.WriteString(out, text)
		return exitSound, err
	}
	return exitUsage, errs.New(errs.Invalid, "unknown command %q\n\n%s", strings.Join(args[:min(2, len(args))], " "), text)
}

func (t tool) run(ctx context.Context, args []string, out io.Writer) (int, error) {
	fs := pflag.NewFlagSet(t.words, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	do := t.make(fs)
	err := fs.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, err := fmt.Fprintf(out, "Usage: shoal oci %s [OPTIONS] %s\n\n%s\n\nOptions:\n%s", t.words, t.args, t.short, fs.FlagUsages())
		return exitSound, err
	}
	if err != nil {
		return exitUsage, errs.New(errs.Invalid, "%s: %w; see 'shoal oci %s --help'", t.words, err, t.words)
	}
	if want := len(strings.Fields(t.args)); !strings.HasPrefix(t.args, "[") && fs.NArg() != want {
		return exitUsage, errs.New(errs.Invalid, "%s wants %s, not %d arguments; see 'shoal oci %s --help'", t.words, t.args, fs.NArg(), t.words)
	}
	code, err := do(ctx, fs.Args(), out)
	if err != nil && code == exitSound {
		code = exitUsage
	}
	return code, err
}

// cannotOpen gives the exit code for what could not be opened: it is not there or closed to us, or it is not what it should be.
func cannotOpen(err error) int {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, context.Canceled) {
		return exitUsage
	}
	return exitUnsound
}

// Levels of findings.
const (
	levelError   = "error"   // the specification says MUST, or it cannot work
	levelWarning = "warning" // it works, but not everywhere, or not as it seems
)

// finding is something to be said about what was looked at.
type finding struct {
	Level   string `json:"level"`
	Where   string `json:"where"`
	Problem string `json:"problem"`
}

// report collects findings.
type report struct {
	Path     string    `json:"path"`
	Valid    bool      `json:"valid"`
	Summary  string    `json:"summary,omitempty"`
	Findings []finding `json:"findings"`
	format   *string
}

func newReport(fs *pflag.FlagSet) *report {
	return &report{Findings: []finding{}, format: formatFlag(fs)}
}

func formatFlag(fs *pflag.FlagSet) *string {
	return fs.String("format", "text", "Output: text or json")
}

func (r *report) wrong(where, format string, args ...any) {
	r.Findings = append(r.Findings, finding{levelError, where, fmt.Sprintf(format, args...)})
}

func (r *report) warn(where, format string, args ...any) {
	r.Findings = append(r.Findings, finding{levelWarning, where, fmt.Sprintf(format, args...)})
}

func checkFormat(format string) error {
	if format != "text" && format != "json" {
		return errs.New(errs.Invalid, "--format %q: want text or json", format)
	}
	return nil
}

// write shows the findings and gives the exit code.
func (r *report) write(out io.Writer) (int, error) {
	errors, warnings := 0, 0
	for _, f := range r.Findings {
		if f.Level == levelError {
			errors++
		} else {
			warnings++
		}
	}
	r.Valid = errors == 0
	code := exitSound
	if !r.Valid {
		code = exitUnsound
	}
	if *r.format == "json" {
		return code, writeJSON(out, r)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%s: %s: %s\n", f.Level, f.Where, f.Problem)
	}
	verdict := "valid"
	if !r.Valid {
		verdict = "not valid, " + plural.Of(errors, "error")
	}
	if warnings > 0 {
		verdict += ", " + plural.Of(warnings, "warning")
	}
	if r.Summary != "" {
		verdict += " (" + r.Summary + ")"
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", r.Path, verdict)
	return code, err
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
