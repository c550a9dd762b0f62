package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
)

// dialStdioCommand joins standard input and output to the engine's socket: the far end of an ssh:// host.
func dialStdioCommand(a *App) *cobra.Command {
	return a.command("dial-stdio", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		conn, err := api.Dialer()(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		go func() {
			_, _ = io.Copy(conn, a.In)
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite() // what the engine still has to say is passed on
			} else {
				_ = conn.Close()
			}
		}()
		_, err = io.Copy(a.Out, conn)
		return err
	})
}
