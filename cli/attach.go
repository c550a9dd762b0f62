package cli

import (
	"context"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/terminal"
	"github.com/shoalhq/shoal/lib/errs"
)

func attachCommand(a *App) *cobra.Command {
	var noStdin, sigProxy bool
	var keysFlag string
	cmd := a.command("attach [OPTIONS] CONTAINER", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		res, err := api.ContainerInspect(ctx, args[0], moby.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		c := res.Container
		switch st := c.State; {
		case st == nil:
		case !st.Running:
			return errs.New(errs.Conflict, "cannot attach to a stopped container, start it first: \"shoal start --attach %s\"", args[0])
		case st.Paused:
			return errs.New(errs.Conflict, "cannot attach to a paused container, unpause it first: \"shoal unpause %s\"", args[0])
		case st.Restarting:
			return errs.New(errs.Conflict, "cannot attach to a restarting container, wait until it is running")
		}
		stdin := !noStdin && c.Config.OpenStdin
		if err := needTerminal(a, stdin, c.Config.Tty); err != nil {
			return err
		}
		keys, list, err := a.detachKeys(keysFlag)
		if err != nil {
			return err
		}
		s := session{app: a, id: c.ID, tty: c.Config.Tty, keys: keys, attach: moby.ContainerAttachOptions{
			Stream: true, Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: list}}
		if sigProxy && !c.Config.Tty {
			running := make(chan struct{})
			close(running)
			defer terminal.ForwardSignals(running, func(sig string) { a.forward(c.ID, sig) })()
		}
		w, err := s.connect(ctx, container.WaitConditionNotRunning)
		if err != nil {
			return err
		}
		defer s.close()
		return s.finish(ctx, w)
	})
	fs := cmd.Flags()
	fs.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	fs.StringVar(&keysFlag, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}
