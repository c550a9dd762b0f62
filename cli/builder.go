package cli

import (
	"context"

	"github.com/docker/cli/opts"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
)

func builderVerbs() []verb {
	return []verb{
		{name: "build", short: "Build an image from a Dockerfile", make: buildCommand},
		{name: "du", short: "Show the build cache", make: builderDuCommand},
		{name: "prune", short: "Remove build cache", make: builderPruneCommand},
	}
}

func builderDuCommand(a *App) *cobra.Command {
	var form string
	cmd := a.command("du [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		u, err := api.DiskUsage(ctx, moby.DiskUsageOptions{BuildCache: true, Verbose: true})
		if err != nil {
			return err
		}
		return cacheList.Write(a.Out, a.format(form, "", false), cacheRows(u.BuildCache.Items))
	})
	cmd.Flags().StringVar(&form, "format", "", formatHelp)
	return cmd
}

func builderPruneCommand(a *App) *cobra.Command {
	var p pruneFlags
	var reserved, most, free opts.MemBytes
	cmd := a.command("prune [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		what := "all dangling build cache"
		if p.all {
			what = "all build cache"
		}
		if err := a.agree(p.force, "This will remove "+what+"."); err != nil {
			return err
		}
		r, err := api.BuildCachePrune(ctx, moby.BuildCachePruneOptions{All: p.all, Filters: p.filters(a), ReservedSpace: reserved.Value(),
			MaxUsedSpace: most.Value(), MinFreeSpace: free.Value()})
		if err != nil {
			return err
		}
		a.pruned("Deleted build cache objects", r.Report.CachesDeleted)
		a.reclaimed(r.Report.SpaceReclaimed)
		return nil
	})
	p.add(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove all unused build cache, not just dangling ones")
	cmd.Flags().Var(&reserved, "keep-storage", "Amount of disk space to keep for cache")
	cmd.Flags().Var(&reserved, "reserved-space", "Amount of disk space always allowed to keep for cache")
	cmd.Flags().Var(&most, "max-used-space", "Maximum amount of disk space allowed to keep for cache")
	cmd.Flags().Var(&free, "min-free-space", "Target amount of free disk space after pruning")
	return cmd
}
