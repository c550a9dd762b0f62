package cli

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

func rmiCommand(a *App) *cobra.Command {
	var force, noPrune bool
	var platforms []string
	cmd := a.command("rmi [OPTIONS] IMAGE [IMAGE...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		list, err := platformList(platforms)
		if err != nil {
			return err
		}
		o := moby.ImageRemoveOptions{Force: force, PruneChildren: !noPrune, Platforms: list}
		fatal := false
		for _, name := range args {
			res, err := api.ImageRemove(ctx, name, o)
			if err != nil {
				// With --force an image that is not there is as wished.
				if !force || !errdefs.IsNotFound(err) {
					fatal = true
				}
				fmt.Fprintln(a.Err, a.explain(err))
				if client.IsConnection(err) {
					break
				}
				continue
			}
			for _, d := range res.Items {
				if d.Deleted != "" {
					fmt.Fprintln(a.Out, "Deleted:", d.Deleted)
				} else {
					fmt.Fprintln(a.Out, "Untagged:", d.Untagged)
				}
			}
		}
		if fatal {
			return exit{code: errs.ExitFailure}
		}
		return nil
	})
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	fs.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	fs.StringSliceVar(&platforms, "platform", nil, `Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

func tagCommand(a *App) *cobra.Command {
	cmd := a.command("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", count(2, 2), func(ctx context.Context, api *client.Client, args []string) error {
		_, err := api.ImageTag(ctx, moby.ImageTagOptions{Source: args[0], Target: args[1]})
		return err
	})
	return cmd
}
