package cli

import (
	"bufio"
	"context"
	"fmt"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
)

func diffCommand(a *App) *cobra.Command {
	cmd := a.command("diff CONTAINER", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		res, err := api.ContainerDiff(ctx, args[0], moby.ContainerDiffOptions{})
		if err != nil {
			return err
		}
		w := bufio.NewWriter(a.Out)
		for _, c := range res.Changes {
			fmt.Fprintf(w, "%s %s\n", c.Kind, c.Path)
		}
		return w.Flush()
	})
	return cmd
}
