package cli

import (
	"context"
	"fmt"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/volume"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/errs"
)

func volumeLsCommand(a *App) *cobra.Command {
	var l listFlags
	var cluster bool
	cmd := a.command("ls [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		if cluster {
			return clusterVolumes("--cluster")
		}
		res, err := api.VolumeList(ctx, moby.VolumeListOptions{Filters: l.filter.Value()})
		if err != nil {
			return err
		}
		for _, w := range res.Warnings {
			a.warn("%s", w)
		}
		sortNatural(res.Items, func(v volume.Volume) string { return v.Name })
		f := a.format(l.format, "volumesFormat", l.quiet)
		if l.quiet && format.IsTable(f) {
			return ids(a, res.Items, func(v volume.Volume) string { return v.Name })
		}
		return volumeList.Write(a.Out, f, res.Items)
	})
	l.add(cmd.Flags(), "Only display volume names")
	cmd.Flags().BoolVar(&cluster, "cluster", false, "Display only cluster volumes, and use cluster volume list formatting")
	return cmd
}

var volumeList = format.List[volume.Volume]{
	Columns: []format.Column[volume.Volume]{
		{Name: "Driver", Header: "DRIVER", Get: func(v volume.Volume) any { return v.Driver }},
		{Name: "Name", Header: "VOLUME NAME", Get: func(v volume.Volume) any { return v.Name }},
		{Name: "Scope", Header: "SCOPE", Get: func(v volume.Volume) any { return v.Scope }},
		{Name: "Mountpoint", Header: "MOUNTPOINT", Get: func(v volume.Volume) any { return v.Mountpoint }},
		{Name: "Labels", Header: "LABELS", Get: func(v volume.Volume) any { return format.Labels(v.Labels) }},
		{Name: "Links", Header: "LINKS", Get: func(v volume.Volume) any {
			if v.UsageData == nil {
				return "N/A"
			}
			return plain(v.UsageData.RefCount)
		}},
		{Name: "Size", Header: "SIZE", Get: func(v volume.Volume) any {
			if v.UsageData == nil {
				return "N/A"
			}
			return orNA(v.UsageData.Size, human)
		}},
		{Name: "Availability", Header: "AVAILABILITY", Get: func(volume.Volume) any { return "N/A" }},
		{Name: "Group", Header: "GROUP", Get: func(volume.Volume) any { return "N/A" }},
		{Name: "Status", Header: "STATUS", Get: func(volume.Volume) any { return "N/A" }},
	},
	Table: []string{"Driver", "Name"},
	Label: func(v volume.Volume, key string) string { return v.Labels[key] },
}

// clusterVolumes refuses what needs a cluster.
func clusterVolumes(flag string) error {
	return errs.New(errs.Unsupported, "%s is for cluster volumes, which need a cluster: this engine is not part of one", flag)
}

func volumeCreateCommand(a *App) *cobra.Command {
	var o moby.VolumeCreateOptions
	var nameFlag string
	labels := opts.NewListOpts(opts.ValidateLabel)
	options := opts.NewMapOpts(nil, nil)
	cluster := []string{"availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing",
		"topology-preferred", "topology-required", "type"}
	var cmd *cobra.Command
	cmd = a.command("create [OPTIONS] [VOLUME]", count(0, 1), func(ctx context.Context, api *client.Client, args []string) error {
		for _, name := range cluster {
			if cmd.Flags().Changed(name) {
				return clusterVolumes("--" + name)
			}
		}
		if len(args) == 1 {
			if nameFlag != "" {
				return badFlag("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
			}
			nameFlag = args[0]
		}
		o.Name, o.DriverOpts = nameFlag, options.GetAll()
		o.Labels = opts.ConvertKVStringsToMap(labels.GetSlice())
		res, err := api.VolumeCreate(ctx, o)
		if err != nil {
			return err
		}
		a.say(res.Volume.Name)
		return nil
	})
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "local", "Specify volume driver name")
	fs.VarP(options, "opt", "o", "Set driver specific options")
	fs.Var(&labels, "label", "Set metadata for a volume")
	fs.StringVar(&nameFlag, "name", "", "Specify volume name")
	_ = fs.MarkHidden("name")
	for _, name := range cluster {
		fs.String(name, "", "Cluster volumes only")
		_ = fs.MarkHidden(name)
	}
	return cmd
}

func volumeRmCommand(a *App) *cobra.Command {
	var force bool
	cmd := a.command("rm [OPTIONS] VOLUME [VOLUME...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		failed := false
		for _, name := range args {
			if _, err := api.VolumeRemove(ctx, name, moby.VolumeRemoveOptions{Force: force}); err != nil {
				failed = true
				fmt.Fprintln(a.Err, a.explain(err))
				if client.IsConnection(err) {
					break
				}
				continue
			}
			a.say(name)
		}
		if failed {
			return exit{code: errs.ExitFailure}
		}
		return nil
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

func volumeUpdateCommand(a *App) *cobra.Command {
	cmd := a.command("update [OPTIONS] VOLUME", count(0, 1), func(context.Context, *client.Client, []string) error {
		return clusterVolumes("volume update")
	})
	cmd.Flags().String("availability", "active", `Cluster Volume availability ("active", "pause", "drain")`)
	return cmd
}
