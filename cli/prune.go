package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/cli/opts"
	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

// pruneFlags are what the prune verbs have in common.
type pruneFlags struct {
	all    bool
	force  bool
	filter opts.FilterOpt
}

func (p *pruneFlags) add(cmd *cobra.Command) {
	p.filter = opts.NewFilterOpt()
	cmd.Flags().Var(&p.filter, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	cmd.Flags().BoolVarP(&p.force, "force", "f", false, "Do not prompt for confirmation")
}

// filters gives the filters as the API takes them: the flag's, and those of config.json that the flag does not contradict.
func (p *pruneFlags) filters(a *App) moby.Filters {
	f := p.filter.Value().Clone()
	if f == nil {
		f = moby.Filters{}
	}
	opposite := map[string]string{"label": "label!", "label!": "label"}
	for _, text := range a.settings().Prune {
		key, value, ok := strings.Cut(text, "=")
		if !ok || opposite[key] != "" && f[opposite[key]][value] {
			continue
		}
		f.Add(key, value)
	}
	return f
}

func (a *App) agree(force bool, warning string) error {
	if force {
		return nil
	}
	return a.confirm("WARNING! " + warning + "\nAre you sure you want to continue?")
}

// pruned shows what has gone: a heading with a line for each, nothing when nothing has gone.
func (a *App) pruned(heading string, names []string) {
	if len(names) > 0 {
		fmt.Fprintf(a.Out, "%s:\n%s\n\n", heading, strings.Join(names, "\n"))
	}
}

func (a *App) reclaimed(n uint64) {
	fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(n)))
}

func containerPruneCommand(a *App) *cobra.Command {
	var p pruneFlags
	cmd := a.command("prune [OPTIONS]", count(0, 0), func(ctx context.Context, _ *client.Client, _ []string) error {
		if err := a.agree(p.force, "This will remove all stopped containers."); err != nil {
			return err
		}
		n, err := a.pruneContainers(ctx, p.filters(a))
		if err != nil {
			return err
		}
		a.reclaimed(n)
		return nil
	})
	p.add(cmd)
	return cmd
}

func (a *App) pruneContainers(ctx context.Context, f moby.Filters) (uint64, error) {
	r, err := a.client.ContainerPrune(ctx, moby.ContainerPruneOptions{Filters: f})
	if err != nil {
		return 0, err
	}
	a.pruned("Deleted Containers", r.Report.ContainersDeleted)
	return r.Report.SpaceReclaimed, nil
}

func imagePruneCommand(a *App) *cobra.Command {
	var p pruneFlags
	cmd := a.command("prune [OPTIONS]", count(0, 0), func(ctx context.Context, _ *client.Client, _ []string) error {
		warning := "This will remove all dangling images."
		if p.all {
			warning = "This will remove all images without at least one container associated to them."
		}
		if err := a.agree(p.force, warning); err != nil {
			return err
		}
		n, err := a.pruneImages(ctx, p.filters(a), p.all)
		if err != nil {
			return err
		}
		a.reclaimed(n)
		return nil
	})
	p.add(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove all unused images, not just dangling ones")
	return cmd
}

func (a *App) pruneImages(ctx context.Context, f moby.Filters, all bool) (uint64, error) {
	f.Add("dangling", fmt.Sprint(!all))
	r, err := a.client.ImagePrune(ctx, moby.ImagePruneOptions{Filters: f})
	if err != nil {
		return 0, err
	}
	a.pruned("Deleted Images", deletedImages(r.Report.ImagesDeleted))
	return r.Report.SpaceReclaimed, nil
}

func deletedImages(list []image.DeleteResponse) []string {
	var out []string
	for _, d := range list {
		if d.Untagged != "" {
			out = append(out, "untagged: "+d.Untagged)
		} else {
			out = append(out, "deleted: "+d.Deleted)
		}
	}
	return out
}

func networkPruneCommand(a *App) *cobra.Command {
	var p pruneFlags
	cmd := a.command("prune [OPTIONS]", count(0, 0), func(ctx context.Context, _ *client.Client, _ []string) error {
		if err := a.agree(p.force, "This will remove all custom networks not used by at least one container."); err != nil {
			return err
		}
		return a.pruneNetworks(ctx, p.filters(a))
	})
	p.add(cmd)
	return cmd
}

func (a *App) pruneNetworks(ctx context.Context, f moby.Filters) error {
	r, err := a.client.NetworkPrune(ctx, moby.NetworkPruneOptions{Filters: f})
	if err != nil {
		return err
	}
	a.pruned("Deleted Networks", r.Report.NetworksDeleted)
	return nil
}

func volumePruneCommand(a *App) *cobra.Command {
	var p pruneFlags
	cmd := a.command("prune [OPTIONS]", count(0, 0), func(ctx context.Context, _ *client.Client, _ []string) error {
		warning := "This will remove anonymous local volumes not used by at least one container."
		if p.all {
			if _, ok := p.filter.Value()["all"]; ok {
				return badFlag("conflicting options: cannot specify both --all and --filter all=1")
			}
			warning = "This will remove all local volumes not used by at least one container."
		}
		if err := a.agree(p.force, warning); err != nil {
			return err
		}
		n, err := a.pruneVolumes(ctx, p.filters(a), p.all)
		if err != nil {
			return err
		}
		a.reclaimed(n)
		return nil
	})
	p.add(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	return cmd
}

func (a *App) pruneVolumes(ctx context.Context, f moby.Filters, all bool) (uint64, error) {
	r, err := a.client.VolumePrune(ctx, moby.VolumePruneOptions{All: all, Filters: f})
	if err != nil {
		return 0, err
	}
	a.pruned("Deleted Volumes", r.Report.VolumesDeleted)
	return r.Report.SpaceReclaimed, nil
}

func systemPruneCommand(a *App) *cobra.Command {
	var p pruneFlags
	var volumes bool
	cmd := a.command("prune [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		if _, ok := p.filter.Value()["until"]; volumes && ok {
			return errs.New(errs.Invalid, `the "until" filter is not supported with "--volumes": volumes do not know when they were last used`)
		}
		if err := a.agree(p.force, p.systemWarning(volumes)); err != nil {
			return err
		}
		var total uint64
		n, err := a.pruneContainers(ctx, p.filters(a))
		if err != nil {
			return err
		}
		total += n
		if err := a.pruneNetworks(ctx, p.filters(a)); err != nil {
			return err
		}
		if volumes {
			if n, err = a.pruneVolumes(ctx, p.filters(a), false); err != nil {
				return err
			}
			total += n
		}
		if n, err = a.pruneImages(ctx, p.filters(a), p.all); err != nil {
			return err
		}
		total += n
		r, err := api.BuildCachePrune(ctx, moby.BuildCachePruneOptions{All: p.all, Filters: p.filters(a)})
		if err == nil {
			a.pruned("Deleted build cache objects", r.Report.CachesDeleted)
			total += r.Report.SpaceReclaimed
		} else if !notThere(err) {
			return err
		}
		a.reclaimed(total)
		return nil
	})
	p.add(cmd)
	cmd.Flags().BoolVarP(&p.all, "all", "a", false, "Remove all unused images not just dangling ones")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "Prune anonymous volumes")
	return cmd
}

func (p *pruneFlags) systemWarning(volumes bool) string {
	lines := []string{"all stopped containers", "all networks not used by at least one container"}
	if volumes {
		lines = append(lines, "all anonymous volumes not used by at least one container")
	}
	if p.all {
		lines = append(lines, "all images without at least one container associated to them", "all build cache")
	} else {
		lines = append(lines, "all dangling images", "unused build cache")
	}
	s := "This will remove:\n  - " + strings.Join(lines, "\n  - ") + "\n"
	if f := p.filter.Value(); len(f) > 0 {
		s += "\n  Items to be pruned will be filtered with:\n"
		for term, vals := range f {
			for v := range vals {
				s += "  - " + term + "=" + v + "\n"
			}
		}
	}
	return s
}
