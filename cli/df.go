package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
)

func dfCommand(a *App) *cobra.Command {
	var verbose bool
	var f string
	cmd := a.command("df [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		done := a.busy("Measuring")
		// Everything at once: the engine looks at each kind of thing for itself.
		u, err := api.DiskUsage(ctx, moby.DiskUsageOptions{Containers: true, Images: true, BuildCache: true, Volumes: true, Verbose: verbose})
		done()
		if err != nil {
			return err
		}
		if verbose {
			return a.verboseUsage(&u, f)
		}
		rows := []usageRow{
			{"Images", u.Images.TotalCount, u.Images.ActiveCount, u.Images.TotalSize, u.Images.Reclaimable},
			{"Containers", u.Containers.TotalCount, u.Containers.ActiveCount, u.Containers.TotalSize, u.Containers.Reclaimable},
			{"Local Volumes", u.Volumes.TotalCount, u.Volumes.ActiveCount, u.Volumes.TotalSize, u.Volumes.Reclaimable},
			{"Build Cache", u.BuildCache.TotalCount, u.BuildCache.ActiveCount, u.BuildCache.TotalSize, u.BuildCache.Reclaimable},
		}
		return usageList.Write(a.Out, a.format(f, "", false), rows)
	})
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	cmd.Flags().StringVar(&f, "format", "", formatHelp)
	return cmd
}

type usageRow struct {
	kind               string
	total, active      int64
	size, reclaimBytes int64
}

func (r usageRow) reclaimable() string {
	s := units.HumanSize(float64(r.reclaimBytes))
	if r.size > 0 && r.kind != "Build Cache" {
		return fmt.Sprintf("%s (%v%%)", s, r.reclaimBytes*100/r.size)
	}
	return s
}

var usageList = format.List[usageRow]{
	Columns: []format.Column[usageRow]{
		{Name: "Type", Header: "TYPE", Get: func(r usageRow) any { return r.kind }},
		{Name: "TotalCount", Header: "TOTAL", Get: func(r usageRow) any { return plain(r.total) }},
		{Name: "Active", Header: "ACTIVE", Get: func(r usageRow) any { return plain(r.active) }},
		{Name: "Size", Header: "SIZE", Get: func(r usageRow) any { return units.HumanSize(float64(r.size)) }},
		{Name: "Reclaimable", Header: "RECLAIMABLE", Get: func(r usageRow) any { return r.reclaimable() }},
	},
	Table: []string{"Type", "TotalCount", "Active", "Size", "Reclaimable"},
}

// verboseUsage shows every thing with its size.
func (a *App) verboseUsage(u *moby.DiskUsageResult, f string) error {
	if f != "" && f != "table" {
		return format.Value(a.Out, f, map[string]any{"Images": u.Images.Items, "Containers": u.Containers.Items,
			"Volumes": u.Volumes.Items, "BuildCache": u.BuildCache.Items}, nil)
	}
	now := time.Now()
	fmt.Fprint(a.Out, "Images space usage:\n\n")
	images := imageList(false)
	images.Table = []string{"Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"}
	if err := images.Write(a.Out, "table", imageRows(u.Images.Items, true, false, false)); err != nil {
		return err
	}
	fmt.Fprint(a.Out, "\nContainers space usage:\n\n")
	var rows []psRow
	for _, c := range u.Containers.Items {
		rows = append(rows, psRow{c, true, now})
	}
	containers := psList(false)
	containers.Table = []string{"ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"}
	if err := containers.Write(a.Out, "table", rows); err != nil {
		return err
	}
	fmt.Fprint(a.Out, "\nLocal Volumes space usage:\n\n")
	volumes := volumeList
	volumes.Table = []string{"Name", "Links", "Size"}
	if err := volumes.Write(a.Out, "table", u.Volumes.Items); err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(u.BuildCache.TotalSize)))
	return cacheList.Write(a.Out, "table", cacheRows(u.BuildCache.Items))
}

func cacheRows(items []build.CacheRecord) []cacheRow {
	now := time.Now()
	var cache []cacheRow
	for _, c := range items {
		r := cacheRow{id: shortID(c.ID), kind: c.Type, size: human(c.Size), created: format.Ago(now, c.CreatedAt),
			usage: c.UsageCount, shared: c.Shared}
		if c.LastUsedAt != nil {
			r.used = format.Ago(now, *c.LastUsedAt)
		}
		if c.InUse {
			r.id += "*"
		}
		cache = append(cache, r)
	}
	return cache
}

type cacheRow struct {
	id, kind, size, created, used string
	usage                         int
	shared                        bool
}

var cacheList = format.List[cacheRow]{
	Columns: []format.Column[cacheRow]{
		{Name: "ID", Header: "CACHE ID", Get: func(r cacheRow) any { return r.id }},
		{Name: "CacheType", Header: "CACHE TYPE", Get: func(r cacheRow) any { return r.kind }},
		{Name: "Size", Header: "SIZE", Get: func(r cacheRow) any { return r.size }},
		{Name: "CreatedSince", Header: "CREATED", Get: func(r cacheRow) any { return r.created }},
		{Name: "LastUsedSince", Header: "LAST USED", Get: func(r cacheRow) any { return r.used }},
		{Name: "UsageCount", Header: "USAGE", Get: func(r cacheRow) any { return r.usage }},
		{Name: "Shared", Header: "SHARED", Get: func(r cacheRow) any { return r.shared }},
	},
	Table: []string{"ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"},
}

// oneLine makes text fit for a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
