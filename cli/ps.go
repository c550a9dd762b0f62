package cli

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/cli/format"
)

func psCommand(a *App) *cobra.Command {
	var l listFlags
	var all, latest, size bool
	var last int
	cmd := &cobra.Command{Use: "ps [OPTIONS]", Args: count(0, 0)}
	fs := cmd.Flags()
	l.add(fs, "Only display container IDs")
	l.addNoTrunc(fs)
	fs.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.IntVarP(&last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := a.API()
		if err != nil {
			return err
		}
		f := a.format(l.format, "psFormat", l.quiet)
		o := moby.ContainerListOptions{All: all, Limit: last, Size: size, Filters: l.filter.Value()}
		if latest && last < 0 {
			o.Limit = 1
		}
		// Sizes are costly to find out, so they are asked for when the template shows them.
		if !l.quiet && !fs.Changed("size") && strings.Contains(f, ".Size") {
			o.Size = true
		}
		res, err := api.ContainerList(cmd.Context(), o)
		if err != nil {
			return err
		}
		if l.quiet {
			if l.format != "" && !format.IsTable(l.format) {
				a.warn("Ignoring custom format, because both --format and --quiet are set.")
			}
			return ids(a, res.Items, func(c container.Summary) string {
				if l.noTrunc {
					return c.ID
				}
				return shortID(c.ID)
			})
		}
		now := time.Now()
		rows := make([]psRow, len(res.Items))
		for i, c := range res.Items {
			rows[i] = psRow{c, !l.noTrunc, now}
		}
		return psList(o.Size).Write(a.Out, f, rows)
	}
	return cmd
}

type psRow struct {
	container.Summary
	short bool
	now   time.Time
}

func psList(size bool) format.List[psRow] {
	l := format.List[psRow]{
		Columns: []format.Column[psRow]{
			{Name: "ID", Header: "CONTAINER ID", Get: func(r psRow) any { return r.id() }},
			{Name: "Image", Header: "IMAGE", Get: func(r psRow) any { return r.image() }},
			{Name: "Command", Header: "COMMAND", Get: func(r psRow) any { return r.command() }},
			{Name: "RunningFor", Header: "CREATED", Get: func(r psRow) any { return format.Ago(r.now, time.Unix(r.Created, 0)) }},
			{Name: "CreatedAt", Header: "CREATED AT", Get: func(r psRow) any { return time.Unix(r.Created, 0).String() }},
			{Name: "State", Header: "STATE", Get: func(r psRow) any { return string(r.State) }},
			{Name: "Status", Header: "STATUS", Get: func(r psRow) any { return r.Status }},
			{Name: "Ports", Header: "PORTS", Get: func(r psRow) any { return showPorts(r.Ports) }},
			{Name: "Names", Header: "NAMES", Get: func(r psRow) any { return r.names() }},
			{Name: "Size", Header: "SIZE", Get: func(r psRow) any { return r.size() }},
			{Name: "Labels", Header: "LABELS", Get: func(r psRow) any { return format.Labels(r.Labels) }},
			{Name: "LocalVolumes", Header: "LOCAL VOLUMES", Get: func(r psRow) any { return r.localVolumes() }},
			{Name: "Mounts", Header: "MOUNTS", Get: func(r psRow) any { return r.mounts() }},
			{Name: "Networks", Header: "NETWORKS", Get: func(r psRow) any { return r.networks() }},
			{Name: "Platform", Header: "PLATFORM", Get: func(r psRow) any { return r.platform() }},
		},
		Table: []string{"ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"},
		Label: func(r psRow, key string) string { return r.Labels[key] },
	}
	if size {
		l.Table = append(l.Table, "Size")
	}
	return l
}

func (r psRow) id() string {
	if r.short {
		return shortID(r.ID)
	}
	return r.ID
}

func (r psRow) image() string {
	img := r.Image
	switch {
	case img == "":
		return "<no image>"
	case !r.short:
		return img
	case shortID(img) == shortID(r.ImageID):
		return shortID(img)
	}
	// A digest is long and says little to the eye where there is a tag.
	if ref, err := reference.ParseNormalizedNamed(img); err == nil {
		if tagged, ok := ref.(reference.NamedTagged); ok {
			if _, digested := ref.(reference.Digested); digested {
				return reference.FamiliarName(tagged) + ":" + tagged.Tag()
			}
		}
	}
	return img
}

func (r psRow) command() string {
	c := r.Command
	if r.short {
		c = format.Ellipsis(c, 20)
	}
	return strconv.Quote(c)
}

func (r psRow) names() string {
	var out []string
	for _, n := range r.Names {
		n = strings.TrimPrefix(n, "/")
		if r.short && strings.Contains(n, "/") {
			continue // a name that a link gave
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

func (r psRow) size() string {
	s := units.HumanSizeWithPrecision(float64(r.SizeRw), 3)
	if r.SizeRootFs > 0 {
		s += " (virtual " + units.HumanSizeWithPrecision(float64(r.SizeRootFs), 3) + ")"
	}
	return s
}

func (r psRow) localVolumes() string {
	n := 0
	for _, m := range r.Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

func (r psRow) mounts() string {
	out := make([]string, 0, len(r.Mounts))
	for _, m := range r.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if r.short {
			name = format.Ellipsis(name, 15)
		}
		out = append(out, name)
	}
	return strings.Join(out, ",")
}

func (r psRow) networks() string {
	if r.NetworkSettings == nil {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(r.NetworkSettings.Networks)), ",")
}

func (r psRow) platform() any {
	if d := r.ImageManifestDescriptor; d != nil && d.Platform != nil {
		return d.Platform
	}
	return nil
}

// showPorts writes ports the short way: ranges where the numbers on both sides run together, "80/tcp" where nothing is
// published.
func showPorts(list []container.PortSummary) string {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b container.PortSummary) int {
		if a.PrivatePort != b.PrivatePort {
			return int(a.PrivatePort) - int(b.PrivatePort)
		}
		if c := strings.Compare(ipText(a.IP), ipText(b.IP)); c != 0 {
			return c
		}
		if a.PublicPort != b.PublicPort {
			return int(a.PublicPort) - int(b.PublicPort)
		}
		return strings.Compare(a.Type, b.Type)
	})
	type run struct{ first, last uint16 }
	type kind struct{ ip, proto string }
	open := map[kind]*run{}
	var order []kind
	var out, moved []string
	show := func(k kind, r run) string {
		s := strconv.Itoa(int(r.first))
		if r.last != r.first {
			s += "-" + strconv.Itoa(int(r.last))
		}
		if k.ip != "" {
			s = k.ip + ":" + s + "->" + s
		}
		return s + "/" + k.proto
	}
	for _, p := range list {
		k := kind{ipText(p.IP), p.Type}
		if k.ip != "" && p.PublicPort != p.PrivatePort {
			moved = append(moved, fmt.Sprintf("%s:%d->%d/%s", k.ip, p.PublicPort, p.PrivatePort, p.Type))
			continue
		}
		r := open[k]
		switch {
		case r == nil:
			open[k] = &run{p.PrivatePort, p.PrivatePort}
			order = append(order, k)
		case p.PrivatePort == r.last+1:
			r.last = p.PrivatePort
		case p.PrivatePort != r.last:
			out = append(out, show(k, *r))
			*r = run{p.PrivatePort, p.PrivatePort}
		}
	}
	for _, k := range order {
		out = append(out, show(k, *open[k]))
	}
	return strings.Join(append(out, moved...), ", ")
}

func ipText(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return ""
	case ip.Is6():
		return "[" + ip.String() + "]"
	}
	return ip.String()
}
