package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/errs"
)

func socketVerbs() []verb {
	return []verb{
		{name: "create", short: "Create a socket whose users may do and see little", make: socketCreateCommand},
		{name: "inspect", short: "Display detailed information on one or more scoped sockets", make: socketInspectCommand},
		{name: "ls", short: "List scoped sockets", make: socketLsCommand, aliases: []string{"list"}},
		{name: "rm", short: "Remove one or more scoped sockets", make: socketRmCommand, aliases: []string{"remove"}},
	}
}

func socketCreateCommand(a *App) *cobra.Command {
	var spec types.SocketSpec
	cmd := a.command("create [OPTIONS] NAME", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		spec.Name = args[0]
		var made types.Socket
		if err := api.Call(ctx, "POST", "/shoal/sockets", spec, &made); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.Out, made.Path)
		return err
	})
	cmd.Long = "Create a socket that speaks the Docker API to those who shall not be root on this machine, and print its path.\n" +
		"Its users see only what has the labels, never environments or other secrets, and everything not permitted is refused.\n" +
		"Mount the directory of the socket, not the socket itself: then containers keep it when the daemon is restarted."
	cmd.Example = "  shoal socket create --read-only --label team=web dashboard\n  shoal socket create --verbs list,restart --label team=web deployer"
	f := cmd.Flags()
	f.BoolVar(&spec.ReadOnly, "read-only", false, "Permit everything that changes nothing: list, inspect, logs, events, stats, top, wait")
	f.StringSliceVar(&spec.Verbs, "verbs", nil, "Permit these: list, inspect, logs, events, stats, top, wait, start, stop, restart, kill, pause, unpause, remove")
	f.StringArrayVarP(&spec.Labels, "label", "l", nil, "Show only what has this label (NAME or NAME=VALUE; several: all of them)")
	f.StringVarP(&spec.Group, "group", "g", "", "Group whose members may connect, by name or number (default: root only)")
	return cmd
}

func (a *App) sockets(ctx context.Context, api *client.Client) (list []types.Socket, err error) {
	return list, api.Call(ctx, "GET", "/shoal/sockets", nil, &list)
}

func socketLsCommand(a *App) *cobra.Command {
	var quiet bool
	var format string
	cmd := a.command("ls [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		if format != "" && format != "table" && format != "json" {
			return badFlag("--format %q: use table or json", format)
		}
		list, err := a.sockets(ctx, api)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.Out, 10, 1, 3, ' ', 0)
		if !quiet && format != "json" {
			fmt.Fprintln(w, "NAME\tVERBS\tLABELS\tPATH")
		}
		for _, s := range list {
			switch {
			case quiet:
				fmt.Fprintln(w, s.Name)
			case format == "json":
				if err := json.NewEncoder(w).Encode(s); err != nil {
					return err
				}
			case s.Problem != "":
				fmt.Fprintf(w, "%s\t%s\t%s\tnot served: %s\n", s.Name, dash(strings.Join(s.Verbs, ",")), dash(strings.Join(s.Labels, ",")), s.Problem)
			default:
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, strings.Join(s.Verbs, ","), dash(strings.Join(s.Labels, ",")), s.Path)
			}
		}
		return w.Flush()
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display names")
	cmd.Flags().StringVar(&format, "format", "", "Format output: table (default) or json")
	return cmd
}

func socketInspectCommand(a *App) *cobra.Command {
	return a.command("inspect SOCKET [SOCKET...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		list, err := a.sockets(ctx, api)
		if err != nil {
			return err
		}
		found := []types.Socket{}
		var missing error
		for _, name := range args {
			n := len(found)
			for _, s := range list {
				if s.Name == name {
					found = append(found, s)
				}
			}
			if len(found) == n && missing == nil {
				missing = errs.New(errs.NotFound, "No such socket: %s", name)
			}
		}
		e := json.NewEncoder(a.Out)
		e.SetIndent("", "    ")
		if err := e.Encode(found); err != nil {
			return err
		}
		return missing
	})
}

func socketRmCommand(a *App) *cobra.Command {
	return a.command("rm SOCKET [SOCKET...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		var failed error
		for _, name := range args {
			if err := api.Call(ctx, "DELETE", "/shoal/sockets/"+url.PathEscape(name), nil, nil); err != nil {
				if failed != nil {
					fmt.Fprintln(a.Err, failed)
				}
				failed = err
				continue
			}
			fmt.Fprintln(a.Out, name)
		}
		return failed
	})
}

// auditRecord is observe/audit.Record as the command line shows it.
type auditRecord struct {
	Time time.Time
	Who  struct {
		UID                 *uint32
		PID                 int
		CN, Address, Socket string
	}
	Method, Path, Query, Error string
	Detail                     map[string]any
	Status                     int
}

func auditCommand(a *App) *cobra.Command {
	var tail int
	var since, form string
	cmd := a.command("audit [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		if form != "" && form != "table" && form != "json" {
			return badFlag("--format %q: use table or json", form)
		}
		q := url.Values{"tail": {fmt.Sprint(tail)}}
		if since != "" {
			t, err := time.Parse(time.RFC3339Nano, since)
			if d, derr := time.ParseDuration(since); derr == nil {
				t, err = time.Now().Add(-d), nil
			}
			if err != nil {
				return badFlag("--since %q: use a duration such as 10m, or a time such as 2026-01-31T12:00:00Z", since)
			}
			q.Set("since", t.Format(time.RFC3339Nano))
		}
		var raw []json.RawMessage
		if err := api.Call(ctx, "GET", "/shoal/audit?"+q.Encode(), nil, &raw); err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.Out, 10, 1, 3, ' ', 0)
		if form != "json" {
			fmt.Fprintln(w, "TIME\tWHO\tSTATUS\tREQUEST")
		}
		for _, line := range raw {
			if form == "json" {
				fmt.Fprintf(a.Out, "%s\n", line)
				continue
			}
			var r auditRecord
			if err := json.Unmarshal(line, &r); err != nil {
				return err
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", r.Time.Local().Format(time.RFC3339), r.who(), r.Status, r.what())
		}
		return w.Flush()
	})
	cmd.Long = "Show who did what over the API. The daemon keeps this record when it was started with --audit-log=FILE."
	cmd.Flags().IntVarP(&tail, "tail", "n", 100, "How many of the last records to show")
	cmd.Flags().StringVar(&since, "since", "", "Show records since a time (2026-01-31T12:00:00Z) or for a duration (10m)")
	cmd.Flags().StringVar(&form, "format", "", "Format output: table (default) or json")
	return cmd
}

func (r *auditRecord) who() string {
	var parts []string
	if r.Who.CN != "" {
		parts = append(parts, format.Plain(r.Who.CN))
	}
	if r.Who.UID != nil {
		parts = append(parts, fmt.Sprintf("uid %d pid %d", *r.Who.UID, r.Who.PID))
	}
	if r.Who.Address != "" {
		parts = append(parts, r.Who.Address)
	}
	if r.Who.Socket != "" {
		parts = append(parts, "socket "+r.Who.Socket)
	}
	return dash(strings.Join(parts, " "))
}

// what shows the request; what comes from clients must not write to the terminal of who reads it.
func (r *auditRecord) what() string {
	s := r.Method + " " + format.Plain(r.Path)
	if r.Query != "" {
		s += "?" + format.Plain(r.Query)
	}
	if len(r.Detail) > 0 {
		b, _ := json.Marshal(r.Detail)
		s += " " + format.Plain(string(b))
	}
	if r.Error != "" {
		s += ": " + format.Plain(r.Error)
	}
	return s
}
