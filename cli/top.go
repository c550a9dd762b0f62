package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
)

func topCommand(a *App) *cobra.Command {
	cmd := a.command("top CONTAINER [ps OPTIONS]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		res, err := api.ContainerTop(ctx, args[0], moby.ContainerTopOptions{Arguments: args[1:]})
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.Out, 20, 1, 3, ' ', 0)
		fmt.Fprintln(w, strings.Join(res.Titles, "\t"))
		for _, p := range res.Processes {
			fmt.Fprintln(w, strings.Join(p, "\t"))
		}
		return w.Flush()
	})
	cmd.Flags().SetInterspersed(false)
	return cmd
}
