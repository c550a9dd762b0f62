package cli

import (
	"context"
	"strings"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

// The verbs that do one thing to each container named: stop, restart, kill, pause, unpause, rename, rm.

// stopFlags are the flags of stop and restart.
type stopFlags struct {
	signal  string
	timeout int
}

func (s *stopFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&s.signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(&s.timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(&s.timeout, "time", 0, "Seconds to wait before killing the container")
	_ = fs.MarkDeprecated("time", "use --timeout instead")
}

// limit is nil when the container's own time-out holds.
func (s *stopFlags) limit(cmd *cobra.Command) *int {
	if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
		return &s.timeout
	}
	return nil
}

func stopCommand(a *App) *cobra.Command {
	var s stopFlags
	var cmd *cobra.Command
	cmd = a.command("stop [OPTIONS] CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		o := moby.ContainerStopOptions{Signal: s.signal, Timeout: s.limit(cmd)}
		return a.parallel(args, func(name string) error {
			_, err := api.ContainerStop(ctx, name, o)
			return err
		})
	})
	s.add(cmd)
	return cmd
}

func restartCommand(a *App) *cobra.Command {
	var s stopFlags
	var cmd *cobra.Command
	cmd = a.command("restart [OPTIONS] CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		o := moby.ContainerRestartOptions{Signal: s.signal, Timeout: s.limit(cmd)}
		return a.parallel(args, func(name string) error {
			_, err := api.ContainerRestart(ctx, name, o)
			return err
		})
	})
	s.add(cmd)
	return cmd
}

func killCommand(a *App) *cobra.Command {
	var signal string
	cmd := a.command("kill [OPTIONS] CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		return a.parallel(args, func(name string) error {
			_, err := api.ContainerKill(ctx, name, moby.ContainerKillOptions{Signal: signal})
			return err
		})
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cmd
}

func pauseCommand(a *App) *cobra.Command {
	cmd := a.command("pause CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		return a.parallel(args, func(name string) error {
			_, err := api.ContainerPause(ctx, name, moby.ContainerPauseOptions{})
			return err
		})
	})
	return cmd
}

func unpauseCommand(a *App) *cobra.Command {
	cmd := a.command("unpause CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		return a.parallel(args, func(name string) error {
			_, err := api.ContainerUnpause(ctx, name, moby.ContainerUnpauseOptions{})
			return err
		})
	})
	return cmd
}

func renameCommand(a *App) *cobra.Command {
	cmd := a.command("rename CONTAINER NEW_NAME", count(2, 2), func(ctx context.Context, api *client.Client, args []string) error {
		if strings.TrimSpace(args[0]) == "" || strings.TrimSpace(args[1]) == "" {
			return badFlag("neither the old nor the new name may be empty")
		}
		_, err := api.ContainerRename(ctx, args[0], moby.ContainerRenameOptions{NewName: args[1]})
		return err
	})
	return cmd
}

func rmCommand(a *App) *cobra.Command {
	var o moby.ContainerRemoveOptions
	cmd := a.command("rm [OPTIONS] CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		return a.parallel(args, func(name string) error {
			// Names as inspect shows them begin with a slash.
			if name = strings.Trim(name, "/"); name == "" {
				return errs.New(errs.Invalid, "container name cannot be empty")
			}
			_, err := api.ContainerRemove(ctx, name, o)
			return err
		})
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	fs.BoolVarP(&o.RemoveLinks, "link", "l", false, "Remove the specified link")
	fs.BoolVarP(&o.RemoveVolumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return cmd
}
