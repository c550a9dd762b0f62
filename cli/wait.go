package cli

import (
	"context"
	"fmt"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

func waitCommand(a *App) *cobra.Command {
	cmd := a.command("wait CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		// All are registered at once, so that the order of the arguments does not matter for what is seen.
		waits := make([]moby.ContainerWaitResult, len(args))
		done := make(chan struct{}, len(args))
		for i, name := range args {
			go func() {
				waits[i] = api.ContainerWait(ctx, name, moby.ContainerWaitOptions{})
				done <- struct{}{}
			}()
		}
		for range args {
			<-done
		}
		failed := false
		for _, w := range waits {
			select {
			case r := <-w.Result:
				if r.Error != nil {
					failed = true
					fmt.Fprintln(a.Err, r.Error.Message)
					continue
				}
				fmt.Fprintln(a.Out, r.StatusCode)
			case err := <-w.Error:
				failed = true
				fmt.Fprintln(a.Err, a.explain(err))
			}
		}
		if failed {
			return exit{code: errs.ExitFailure}
		}
		return nil
	})
	return cmd
}
