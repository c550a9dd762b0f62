package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/terminal"
	"github.com/shoalhq/shoal/lib/errs"
)

type startFlags struct {
	attach, interactive bool
	keys                string
	start               moby.ContainerStartOptions
}

func startCommand(a *App) *cobra.Command {
	var s startFlags
	cmd := a.command("start [OPTIONS] CONTAINER [CONTAINER...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		if s.attach || s.interactive {
			if len(args) > 1 {
				return badFlag("you cannot start and attach multiple containers at once")
			}
			return s.attached(ctx, a, args[0])
		}
		if s.start.CheckpointID != "" && len(args) > 1 {
			return badFlag("you cannot restore multiple containers at once")
		}
		var failed []string
		for _, name := range args {
			if _, err := api.ContainerStart(ctx, name, s.start); err != nil {
				failed = append(failed, name)
				fmt.Fprintln(a.Err, a.explain(err))
				if client.IsConnection(err) {
					break
				}
				continue
			}
			a.say(name)
		}
		if len(failed) > 0 {
			return exit{code: errs.ExitFailure, err: fmt.Errorf("Error: failed to start containers: %s", strings.Join(failed, ", "))}
		}
		return nil
	})
	fs := cmd.Flags()
	fs.BoolVarP(&s.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	fs.BoolVarP(&s.interactive, "interactive", "i", false, "Attach container's STDIN")
	fs.StringVar(&s.keys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.StringVar(&s.start.CheckpointID, "checkpoint", "", "Restore from this checkpoint")
	fs.StringVar(&s.start.CheckpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	return cmd
}

// attached starts one container with a person or pipe on its streams.
func (f *startFlags) attached(ctx context.Context, a *App, name string) error {
	api := a.client
	res, err := api.ContainerInspect(ctx, name, moby.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := res.Container
	if c.State != nil && c.State.Running {
		return errs.New(errs.Conflict, "cannot start and attach: container %s is already running; use \"shoal attach %s\"", name, name)
	}
	keys, list, err := a.detachKeys(f.keys)
	if err != nil {
		return err
	}
	s := session{app: a, id: c.ID, tty: c.Config.Tty, keys: keys, attach: moby.ContainerAttachOptions{
		Stream: true, Stdin: f.interactive && c.Config.OpenStdin, Stdout: true, Stderr: true, DetachKeys: list}}
	condition := container.WaitConditionNextExit
	if c.HostConfig.AutoRemove {
		condition = container.WaitConditionRemoved
	}
	started := make(chan struct{})
	if !c.Config.Tty {
		defer terminal.ForwardSignals(started, func(sig string) { a.forward(c.ID, sig) })()
	}
	w, err := s.connect(ctx, condition)
	if err != nil {
		return err
	}
	defer s.close()
	if _, err := api.ContainerStart(ctx, c.ID, f.start); err != nil {
		return err
	}
	close(started)
	return s.finish(ctx, w)
}
