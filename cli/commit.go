package cli

import (
	"context"

	"github.com/docker/cli/opts"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
)

func commitCommand(a *App) *cobra.Command {
	var o moby.ContainerCommitOptions
	pause := true
	changes := opts.NewListOpts(nil)
	cmd := a.command("commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", count(1, 2), func(ctx context.Context, api *client.Client, args []string) error {
		if len(args) == 2 {
			o.Reference = args[1]
		}
		o.Changes = changes.GetSlice()
		o.NoPause = o.NoPause || !pause
		done := a.busy("Committing " + args[0])
		res, err := api.ContainerCommit(ctx, args[0], o)
		done()
		if err != nil {
			return err
		}
		a.say(res.ID)
		return nil
	})
	fs := cmd.Flags()
	fs.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&o.Comment, "message", "m", "", "Commit message")
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	fs.BoolVar(&o.NoPause, "no-pause", false, "Disable pausing container during commit")
	return cmd
}
