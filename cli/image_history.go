package cli

import (
	"context"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
)

func historyCommand(a *App) *cobra.Command {
	var quiet, noTrunc, human bool
	var f, platform string
	cmd := a.command("history [OPTIONS] IMAGE", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		var o []moby.ImageHistoryOption
		if platform != "" {
			p, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			o = append(o, moby.ImageHistoryWithPlatform(*p))
		}
		res, err := api.ImageHistory(ctx, args[0], o...)
		if err != nil {
			return err
		}
		rows := make([]historyRow, len(res.Items))
		for i, h := range res.Items {
			rows[i] = historyRow{h, !noTrunc, human, time.Now()}
		}
		if quiet {
			return ids(a, rows, historyRow.id)
		}
		l := historyList
		if !human {
			l.Table = []string{"ID", "CreatedAt", "CreatedBy", "Size", "Comment"}
		}
		return l.Write(a.Out, a.format(f, "", quiet), rows)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&f, "format", "", formatHelp)
	fs.StringVar(&platform, "platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

type historyRow struct {
	image.HistoryResponseItem
	short, human bool
	now          time.Time
}

func (r historyRow) id() string {
	if r.short {
		return shortID(r.ID)
	}
	return r.ID
}

func (r historyRow) createdAt() string {
	if r.Created <= 0 {
		return "N/A"
	}
	return time.Unix(r.Created, 0).Format(time.RFC3339)
}

var historyList = format.List[historyRow]{
	Columns: []format.Column[historyRow]{
		{Name: "ID", Header: "IMAGE", Get: func(r historyRow) any { return r.id() }},
		{Name: "CreatedSince", Header: "CREATED", Get: func(r historyRow) any {
			return format.Ago(r.now, time.Unix(r.Created, 0))
		}},
		{Name: "CreatedAt", Header: "CREATED AT", Get: func(r historyRow) any { return r.createdAt() }},
		{Name: "CreatedBy", Header: "CREATED BY", Get: func(r historyRow) any {
			by := strings.ReplaceAll(r.CreatedBy, "\t", " ")
			if r.short {
				return format.Ellipsis(by, 45)
			}
			return by
		}},
		{Name: "Size", Header: "SIZE", Get: func(r historyRow) any {
			if r.human {
				return units.HumanSizeWithPrecision(float64(r.Size), 3)
			}
			return plain(r.Size)
		}},
		{Name: "Comment", Header: "COMMENT", Get: func(r historyRow) any { return r.Comment }},
	},
	Table: []string{"ID", "CreatedSince", "CreatedBy", "Size", "Comment"},
}
