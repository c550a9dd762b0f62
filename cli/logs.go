package cli

import (
	"context"
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
)

func logsCommand(a *App) *cobra.Command {
	o := moby.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
	cmd := a.command("logs [OPTIONS] CONTAINER", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		// Whether the stream is framed depends on the container's terminal, which is asked for at the same time.
		type answer struct {
			tty bool
			err error
		}
		tty := make(chan answer, 1)
		go func() {
			res, err := api.ContainerInspect(ctx, args[0], moby.ContainerInspectOptions{})
			tty <- answer{err == nil && res.Container.Config != nil && res.Container.Config.Tty, err}
		}()
		logs, err := api.ContainerLogs(ctx, args[0], o)
		ans := <-tty
		if ans.err != nil {
			return ans.err
		}
		if err != nil {
			return err
		}
		defer logs.Close()
		if ans.tty {
			_, err = io.Copy(a.Out, logs)
		} else {
			_, err = stdcopy.StdCopy(a.Out, a.Err, logs)
		}
		return err
	})
	fs := cmd.Flags()
	fs.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	return cmd
}
