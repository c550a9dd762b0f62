package cli

import (
	"context"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

func exportCommand(a *App) *cobra.Command {
	var output string
	cmd := a.command("export [OPTIONS] CONTAINER", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		if output == "" && terminalOf(a.Out) != nil {
			return errs.New(errs.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		r, err := api.ContainerExport(ctx, args[0], moby.ContainerExportOptions{})
		if err != nil {
			return err
		}
		defer r.Close()
		return a.saveTo(output, "Exporting "+args[0], r)
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}
