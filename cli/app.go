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
	app := &App{Streams: std, args: args}
	if path, yes := app.completing(); yes {
		return app.report(app.runPlugin(path))
	}
	if err := app.dealias(); err != nil {
		return app.report(err)
	}
	root := app.root()
	root.SetArgs(app.args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	err := root.ExecuteContext(context.Background())
	if app.client != nil {
		_ = app.client.Close()
	}
	return app.report(err)
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
	if f, ok := stream.(*os.File); ok {
		return terminal.Of(f)
	}
	return nil
}

// interruptible gives a context that ends at SIGINT, SIGTERM or SIGHUP, for verbs that have something to tidy away.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
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
