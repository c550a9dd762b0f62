package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/opts"
	"github.com/docker/go-connections/nat"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
)

func portsCommand(a *App) *cobra.Command {
	var format string
	cmd := a.command("ports [OPTIONS] [CONTAINER...]", count(0, -1), func(ctx context.Context, api *client.Client, args []string) error {
		if format != "" && format != "table" && format != "json" {
			return badFlag("--format %q: use table or json", format)
		}
		var all, list []types.PublishedPort
		if err := api.Call(ctx, "GET", "/shoal/ports", nil, &all); err != nil {
			return err
		}
		found := map[string]bool{}
		for _, p := range all {
			for _, name := range args {
				if p.Container == name || len(name) > 0 && strings.HasPrefix(p.ContainerID, name) {
					found[name] = true
				}
			}
			if len(args) == 0 || found[p.Container] || matchesAny(p, args) {
				list = append(list, p)
			}
		}
		for _, name := range args {
			if !found[name] {
				return errs.New(errs.NotFound, "no running container %s has a port that can be reached from outside its networks", name)
			}
		}
		if format == "json" {
			enc := json.NewEncoder(a.Out)
			for _, p := range list {
				if err := enc.Encode(p); err != nil {
					return err
				}
			}
			return nil
		}
		w := tabwriter.NewWriter(a.Out, 10, 1, 3, ' ', 0)
		fmt.Fprintln(w, "CONTAINER\tHOST\tPORT\tREACHABLE FROM\tTHROUGH")
		for _, p := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Container, hostSide(p), orAll(p.Port), orProblem(p), dash(p.Through))
		}
		return w.Flush()
	})
	cmd.Long = "List what of the containers can be reached from outside their networks, from where, and whether the kernel carries\n" +
		"the traffic or the daemon does (which hides the client's address and ends with the daemon)."
	cmd.Flags().StringVar(&format, "format", "", "Format output: table (default) or json")
	return cmd
}

func matchesAny(p types.PublishedPort, names []string) bool {
	for _, n := range names {
		if p.Container == n || n != "" && strings.HasPrefix(p.ContainerID, n) {
			return true
		}
	}
	return false
}

func hostSide(p types.PublishedPort) string {
	if p.HostIP == "" {
		return dash(p.Target)
	}
	return net.JoinHostPort(p.HostIP, strconv.Itoa(int(p.HostPort)))
}

func orAll(port string) string {
	if port == "" {
		return "all"
	}
	return port
}

func orProblem(p types.PublishedPort) string {
	if p.Problem != "" {
		return "nowhere: " + p.Problem
	}
	return strings.Join(p.From, ", ")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// portFlags are the flags of `update` that change published ports.
type portFlags struct{ publish, unpublish opts.ListOpts }

func (f *portFlags) add(fs *pflag.FlagSet) {
	f.publish, f.unpublish = opts.NewListOpts(nil), opts.NewListOpts(nil)
	fs.Var(&f.publish, "publish-add", "Publish a further port, also while the container runs (as --publish of run; published=8080,target=80,from=192.0.2.0/24 limits who may connect)")
	fs.Var(&f.unpublish, "publish-rm", "Take a published port back, also while the container runs (80, 80/udp, 8080:80 or 127.0.0.1:8080:80)")
}

// change reads the flags.
func (f *portFlags) change() (c types.PortChange, err error) {
	for _, s := range f.publish.GetSlice() {
		specs, err := readPublish(s, "--publish-add")
		if err != nil {
			return c, err
		}
		c.Add = append(c.Add, specs...)
	}
	for _, s := range f.unpublish.GetSlice() {
		specs, err := readPublish(s, "--publish-rm")
		if err != nil {
			return c, err
		}
		c.Remove = append(c.Remove, specs...)
	}
	return c, nil
}

func (f *portFlags) apply(ctx context.Context, api *client.Client, name string, c types.PortChange) error {
	if len(c.Add)+len(c.Remove) == 0 {
		return nil
	}
	return api.Call(ctx, "POST", "/shoal/containers/"+name+"/ports", c, nil)
}

// readPublish reads [[host-address:]host-port[-end]:]port[-end][/protocol], or its long form with commas.
func readPublish(s, flag string) (out []types.PortSpec, err error) {
	var from []string
	if strings.Contains(s, "=") {
		v := map[string]string{"protocol": "tcp"}
		for param := range strings.SplitSeq(s, ",") {
			key, val, ok := strings.Cut(param, "=")
			switch {
			case !ok || key != "published" && key != "target" && key != "protocol" && key != "host_ip" && key != "from":
				return nil, badFlag("%s %q: want published=, target=, protocol=, host_ip= or from=, got %q", flag, s, param)
			case key == "from":
				from = append(from, val)
			default:
				v[key] = val
			}
		}
		s = v["published"] + ":" + v["target"] + "/" + v["protocol"]
		if ip := v["host_ip"]; strings.Contains(ip, ":") {
			s = "[" + strings.Trim(ip, "[]") + "]:" + s
		} else if ip != "" {
			s = ip + ":" + s
		}
	}
	maps, err := nat.ParsePortSpec(s)
	if err != nil {
		return nil, badFlag("%s %q: %v; want [ADDRESS:][HOST-PORT:]CONTAINER-PORT[/tcp|udp|sctp], such as 8080:80 or 127.0.0.1:53:53/udp", flag, s, err)
	}
	for _, m := range maps {
		out = append(out, types.PortSpec{Port: string(m.Port), HostIP: m.Binding.HostIP, HostPort: m.Binding.HostPort, From: from})
	}
	return out, nil
}
