package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/cli/terminal"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/version"
)

// Streams are what the command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// App is one run of the command line.
type App struct {
	Streams
	args   []string
	global client.Options
	debug  bool
	client *client.Client
	config *configFile
}

// Main runs the command line with the arguments after the program's name and gives the exit code.
func Main(args []string, std Streams) int {
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	out := &output{Writer: std.Out}
	std.Out = out
	app := &App{Streams: std, args: args}
	err := app.main()
	code := app.report(err)
	if lost := out.failed(); lost != nil && !errors.Is(err, lost) {
		fmt.Fprintln(std.Err, lost)
		code = max(code, errs.ExitFailure)
	}
	return code
}

func (a *App) main() error {
	if path, yes := a.completing(); yes {
		return a.runPlugin(path)
	}
	if err := a.dealias(); err != nil {
		return err
	}
	root := a.root()
	root.SetArgs(a.args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	err := root.ExecuteContext(context.Background())
	if a.client != nil {
		_ = a.client.Close()
	}
	return err
}

// Command is the whole command line as a tree of verbs, for manual pages and completion.
func Command() *cobra.Command { return (&App{args: []string{"__complete"}}).root() }

// API is the client for the chosen engine, made on first use.
func (a *App) API() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	o := a.global
	o.UserAgent = "Shoal-Client/" + version.Version + " (linux)"
	c, err := client.New(context.Background(), o)
	if err != nil {
		return nil, err
	}
	a.client = c
	return c, nil
}

// terminalOf gives the terminal behind a stream, or nil when it is a file, a pipe or a buffer.
func terminalOf(stream any) *terminal.Terminal {
	if o, ok := stream.(*output); ok {
		stream = o.Writer
	}
	if f, ok := stream.(*os.File); ok {
		return terminal.Of(f)
	}
	return nil
}

// interruptible gives a context that ends at SIGINT, SIGTERM or SIGHUP, for verbs that have something to tidy away.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case s := <-arrived:
			cancel(interrupted(s.(syscall.Signal)))
		case <-ctx.Done():
		}
		signal.Stop(arrived)
	}()
	return ctx, func() { cancel(nil) }
}

// interrupted is the signal that ended an interruptible context.
type interrupted syscall.Signal

func (i interrupted) Error() string {
	if syscall.Signal(i) == syscall.SIGINT {
		return "interrupted"
	}
	return "interrupted: " + syscall.Signal(i).String()
}

// exit is an error that carries the exit code; err may be nil when all has been said.
type exit struct {
	code          int
	err           error
	before, after string // printed around it
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.before + e.err.Error() + e.after
}

func (e exit) Unwrap() error { return e.err }

// usageError is a command line that cannot be understood.
type usageError struct {
	cmd  *cobra.Command
	err  error
	code int
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// report prints the error, if there is one, and gives the exit code.
func (a *App) report(err error) int {
	if err == nil {
		return 0
	}
	code := errs.ExitFailure
	var ex exit
	if errors.As(err, &ex) {
		code = ex.code
		if ex.err == nil {
			return code
		}
	}
	var sig interrupted
	if errors.As(err, &sig) { // through which call it came says nothing
		fmt.Fprintln(a.Err, sig.Error())
		return 128 + int(sig)
	}
	var use usageError
	if errors.As(err, &use) {
		fmt.Fprintf(a.Err, "%s\n\nUsage:  %s\n\nRun '%s --help' for more information\n", strings.TrimRight(use.Error(), "\n"),
			useLine(use.cmd), use.cmd.CommandPath())
		return use.code
	}
	msg := a.explain(err).Error()
	if msg = strings.TrimRight(msg, "\n"); msg != "" {
		fmt.Fprintln(a.Err, format.PlainLines(msg))
	}
	return code
}

// explain makes of an error what a person needs to read.
func (a *App) explain(err error) error {
	if a.client != nil && errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection to the engine at %s was lost: its daemon ended or was restarted; containers are not touched by that: %w",
			a.client.Endpoint().Host, err)
	}
	if a.client == nil || !client.IsConnection(err) {
		return err
	}
	var ex exit
	if errors.As(err, &ex) {
		return fmt.Errorf("%s%w", ex.before, a.client.Explain(ex.err))
	}
	return a.client.Explain(err)
}

// each does something to every name, tells of each failure, and fails at the end if one did.
func (a *App) each(names []string, do func(name string) error) error {
	failed := false
	for _, n := range names {
		if err := do(n); err != nil {
			fmt.Fprintln(a.Err, format.PlainLines(a.explain(err).Error()))
			failed = true
			if client.IsConnection(err) {
				break // the others would only say the same
			}
		}
	}
	if failed {
		return exit{code: errs.ExitFailure}
	}
	return nil
}
