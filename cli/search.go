package cli

import (
	"context"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/registry"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
)

func searchCommand(a *App) *cobra.Command {
	var o moby.ImageSearchOptions
	var f string
	var noTrunc bool
	filter := opts.NewFilterOpt()
	cmd := a.command("search [OPTIONS] TERM", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		o.Filters = filter.Value()
		res, err := api.ImageSearch(ctx, args[0], o)
		if err != nil {
			return err
		}
		rows := make([]searchRow, len(res.Items))
		for i, r := range res.Items {
			rows[i] = searchRow{r, !noTrunc}
		}
		return searchList.Write(a.Out, f, rows)
	})
	fs := cmd.Flags()
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&f, "format", "", "Pretty-print search using a Go template")
	fs.IntVar(&o.Limit, "limit", 0, "Max number of search results")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	return cmd
}

type searchRow struct {
	registry.SearchResult
	short bool
}

var searchList = format.List[searchRow]{
	Columns: []format.Column[searchRow]{
		{Name: "Name", Header: "NAME", Get: func(r searchRow) any { return r.Name }},
		{Name: "Description", Header: "DESCRIPTION", Get: func(r searchRow) any {
			d := oneLine(r.Description)
			if r.short {
				return format.Ellipsis(d, 45)
			}
			return d
		}},
		{Name: "StarCount", Header: "STARS", Get: func(r searchRow) any { return r.StarCount }},
		{Name: "IsOfficial", Header: "OFFICIAL", Get: func(r searchRow) any {
			if r.IsOfficial {
				return "[OK]"
			}
			return ""
		}},
	},
	Table: []string{"Name", "Description", "StarCount", "IsOfficial"},
}
