package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

// command makes a verb whose work needs the engine.
func (a *App) command(use string, args cobra.PositionalArgs, run func(ctx context.Context, api *client.Client, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		api, err := a.API()
		if err != nil {
			return err
		}
		return run(cmd.Context(), api, args)
	}}
}

// parallel does something to every name at once (at most 50), shows each name that went well and each failure, in order.
func (a *App) parallel(names []string, do func(name string) error) error {
	results := make([]chan error, len(names))
	slots := make(chan struct{}, 50)
	var wg sync.WaitGroup
	for i, n := range names {
		results[i] = make(chan error, 1)
		wg.Go(func() {
			slots <- struct{}{}
			results[i] <- do(n)
			<-slots
		})
	}
	failed := false
	for i, n := range names {
		if err := <-results[i]; err != nil {
			failed = true
			fmt.Fprintln(a.Err, a.explain(err))
			if client.IsConnection(err) {
				break
			}
			continue
		}
		a.say(n)
	}
	wg.Wait()
	if failed {
		return exit{code: errs.ExitFailure}
	}
	return nil
}

const formatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template`

const valueFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template`

// listFlags are what listing verbs have in common.
type listFlags struct {
	format  string
	quiet   bool
	noTrunc bool
	filter  opts.FilterOpt
}

func (l *listFlags) add(fs *pflag.FlagSet, quiet string) {
	l.filter = opts.NewFilterOpt()
	fs.VarP(&l.filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&l.format, "format", "", formatHelp)
	fs.BoolVarP(&l.quiet, "quiet", "q", false, quiet)
}

func (l *listFlags) addNoTrunc(fs *pflag.FlagSet) {
	fs.BoolVar(&l.noTrunc, "no-trunc", false, "Don't truncate output")
}

// ids shows one identifier per line, for quiet forms.
func ids[T any](a *App, items []T, id func(T) string) error {
	var b strings.Builder
	for _, it := range items {
		b.WriteString(id(it))
		b.WriteByte('\n')
	}
	_, err := a.Out.Write([]byte(b.String()))
	return err
}

// shortID is the form of an identifier that people see.
func shortID(id string) string {
	if i := strings.IndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}
