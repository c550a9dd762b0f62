package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

func portCommand(a *App) *cobra.Command {
	cmd := a.command("port CONTAINER [PRIVATE_PORT[/PROTO]]", count(1, 2), func(ctx context.Context, api *client.Client, args []string) error {
		res, err := api.ContainerInspect(ctx, args[0], moby.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		var bound network.PortMap
		if res.Container.NetworkSettings != nil {
			bound = res.Container.NetworkSettings.Ports
		}
		if len(args) == 2 {
			p, err := network.ParsePort(args[1])
			if err != nil || p.Num() == 0 {
				return badFlag("invalid port %q: use PORT or PORT/PROTO", args[1])
			}
			list, ok := bound[p]
			if !ok || len(list) == 0 {
				return errs.New(errs.NotFound, "Error: No public port '%s' published for %s", args[1], args[0])
			}
			for _, b := range list {
				fmt.Fprintln(a.Out, net.JoinHostPort(addrText(b), b.HostPort))
			}
			return nil
		}
		type line struct {
			port network.Port
			host string
		}
		var lines []line
		for p, list := range bound {
			for _, b := range list {
				lines = append(lines, line{p, net.JoinHostPort(addrText(b), b.HostPort)})
			}
		}
		slices.SortFunc(lines, func(a, b line) int {
			if a.port.Num() != b.port.Num() {
				return int(a.port.Num()) - int(b.port.Num())
			}
			return strings.Compare(a.port.String()+a.host, b.port.String()+b.host)
		})
		for _, l := range lines {
			fmt.Fprintf(a.Out, "%s -> %s\n", l.port, l.host)
		}
		return nil
	})
	return cmd
}

func addrText(b network.PortBinding) string {
	if !b.HostIP.IsValid() {
		return "0.0.0.0"
	}
	return b.HostIP.String()
}
