package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/runflags"
	"github.com/shoalhq/shoal/lib/errs"
)

func updateCommand(a *App) *cobra.Command {
	var u *runflags.Update
	var ports portFlags
	var cmd *cobra.Command
	cmd = a.command("update [OPTIONS] CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		said := false
		cmd.Flags().Visit(func(*pflag.Flag) { said = true })
		if !said {
			return badFlag("you must provide one or more flags when using this command")
		}
		res, policy, err := u.Request(cmd.Flags())
		if err != nil {
			return err
		}
		var restart *container.RestartPolicy
		if policy.Name != "" {
			restart = &policy
		}
		change, err := ports.change()
		if err != nil {
			return err
		}
		onlyPorts := len(change.Add)+len(change.Remove) > 0
		cmd.Flags().Visit(func(f *pflag.Flag) { onlyPorts = onlyPorts && strings.HasPrefix(f.Name, "publish-") })
		failed := false
		var warnings []string
		for _, name := range args {
			var r moby.ContainerUpdateResult
			if !onlyPorts {
				r, err = api.ContainerUpdate(ctx, name, moby.ContainerUpdateOptions{Resources: &res, RestartPolicy: restart})
			}
			if err == nil {
				err = ports.apply(ctx, api, name, change)
			}
			if err != nil {
				fmt.Fprintln(a.Err, a.explain(err))
				failed = true
				continue
			}
			a.say(name)
			warnings = append(warnings, r.Warnings...)
		}
		a.warnings(warnings)
		if failed {
			return exit{code: errs.ExitFailure}
		}
		return nil
	})
	u = runflags.AddUpdate(cmd.Flags())
	ports.add(cmd.Flags())
	return cmd
}
