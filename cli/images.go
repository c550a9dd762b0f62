package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
)

func imagesCommand(a *App) *cobra.Command {
	var l listFlags
	var all, digests, tree bool
	cmd := a.command("images [OPTIONS] [REPOSITORY[:TAG]]", count(0, 1), func(ctx context.Context, api *client.Client, args []string) error {
		o := moby.ImageListOptions{All: all, Filters: l.filter.Value()}
		if len(args) == 1 {
			o.Filters = o.Filters.Clone()
			if o.Filters == nil {
				o.Filters = moby.Filters{}
			}
			o.Filters.Add("reference", args[0])
		}
		if tree {
			if l.quiet || l.noTrunc || l.format != "" || digests {
				return badFlag("--tree shows its own form: it cannot be combined with --quiet, --no-trunc, --format or --digests")
			}
			o.Manifests = true
		}
		res, err := api.ImageList(ctx, o)
		if err != nil {
			return err
		}
		slices.SortStableFunc(res.Items, func(a, b image.Summary) int { return cmp.Compare(b.Created, a.Created) })
		if tree {
			return a.imageTree(res.Items)
		}
		f := a.format(l.format, "imagesFormat", l.quiet)
		rows := imageRows(res.Items, !l.noTrunc, digests || strings.Contains(f, ".Digest"), l.filter.Value()["dangling"]["true"])
		if l.quiet && format.IsTable(f) {
			return ids(a, rows, imageRow.id)
		}
		return imageList(digests).Write(a.Out, f, rows)
	})
	fs := cmd.Flags()
	l.add(fs, "Only show image IDs")
	l.addNoTrunc(fs)
	fs.BoolVarP(&all, "all", "a", false, "Show all images (default hides intermediate images)")
	fs.BoolVar(&digests, "digests", false, "Show digests")
	fs.BoolVar(&tree, "tree", false, "List multi-platform images as a tree")
	return cmd
}

// imageRow is one name of an image.
type imageRow struct {
	s                 image.Summary
	short             bool
	repo, tag, digest string
	now               time.Time
}

func (r imageRow) id() string {
	if r.short {
		return shortID(r.s.ID)
	}
	return r.s.ID
}

const none = "<none>"

// imageRows makes a row for each name of each image; with digests, one for each digest of a name.
func imageRows(items []image.Summary, short, digests, dangling bool) []imageRow {
	now := time.Now()
	var out []imageRow
	for _, s := range items {
		row := imageRow{s: s, short: short, repo: none, tag: none, digest: none, now: now}
		byRepo := map[string][]string{}
		var repos []string
		for _, d := range s.RepoDigests {
			if ref, err := reference.ParseNormalizedNamed(d); err == nil {
				name := reference.FamiliarName(ref)
				if c, ok := ref.(reference.Canonical); ok {
					if byRepo[name] == nil {
						repos = append(repos, name)
					}
					byRepo[name] = append(byRepo[name], c.Digest().String())
				}
			}
		}
		tagged := map[string]bool{}
		before := len(out)
		for _, t := range s.RepoTags {
			if t == none+":"+none || dangling {
				continue
			}
			repo, tag := splitTag(t)
			tagged[repo] = true
			row.repo, row.tag = repo, tag
			if !digests || len(byRepo[repo]) == 0 {
				out = append(out, row)
				continue
			}
			for _, d := range byRepo[repo] {
				row.digest = d
				out = append(out, row)
			}
			row.digest = none
		}
		for _, repo := range repos {
			if tagged[repo] {
				continue
			}
			row.repo, row.tag, row.digest = repo, none, byRepo[repo][0]
			out = append(out, row)
		}
		if len(out) == before {
			row.repo, row.tag, row.digest = none, none, none
			out = append(out, row)
		}
	}
	return out
}

func splitTag(t string) (repo, tag string) {
	if ref, err := reference.ParseNormalizedNamed(t); err == nil {
		if nt, ok := ref.(reference.NamedTagged); ok {
			return reference.FamiliarName(ref), nt.Tag()
		}
		return reference.FamiliarName(ref), none
	}
	return t, none
}

func imageList(digests bool) format.List[imageRow] {
	l := format.List[imageRow]{
		Columns: []format.Column[imageRow]{
			{Name: "Repository", Header: "REPOSITORY", Get: func(r imageRow) any { return r.repo }},
			{Name: "Tag", Header: "TAG", Get: func(r imageRow) any { return r.tag }},
			{Name: "Digest", Header: "DIGEST", Get: func(r imageRow) any { return r.digest }},
			{Name: "ID", Header: "IMAGE ID", Get: func(r imageRow) any { return r.id() }},
			{Name: "CreatedSince", Header: "CREATED", Get: func(r imageRow) any { return format.Ago(r.now, time.Unix(r.s.Created, 0)) }},
			{Name: "CreatedAt", Header: "CREATED AT", Get: func(r imageRow) any { return time.Unix(r.s.Created, 0).String() }},
			{Name: "Size", Header: "SIZE", Get: func(r imageRow) any { return units.HumanSizeWithPrecision(float64(r.s.Size), 3) }},
			{Name: "Containers", Header: "CONTAINERS", Get: func(r imageRow) any { return orNA(r.s.Containers, plain) }},
			{Name: "VirtualSize", Header: "SIZE", Get: func(r imageRow) any { return units.HumanSize(float64(r.s.Size)) }},
			{Name: "SharedSize", Header: "SHARED SIZE", Get: func(r imageRow) any { return orNA(r.s.SharedSize, human) }},
			{Name: "UniqueSize", Header: "UNIQUE SIZE", Get: func(r imageRow) any {
				if r.s.SharedSize == -1 {
					return "N/A"
				}
				return human(r.s.Size - r.s.SharedSize)
			}},
		},
		Table: []string{"Repository", "Tag", "ID", "CreatedSince", "Size"},
	}
	if digests {
		l.Table = []string{"Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"}
	}
	return l
}
