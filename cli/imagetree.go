package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/image"
)

// imageTree shows every image with the platforms it holds.
func (a *App) imageTree(items []image.Summary) error {
	w := tabwriter.NewWriter(a.Out, 10, 1, 3, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tIN USE")
	for _, s := range items {
		names := strings.Join(s.RepoTags, ", ")
		if names == "" {
			names = "<untagged>"
		}
		used := ""
		if s.Containers > 0 {
			used = "yes"
		}
		var content int64
		for _, m := range s.Manifests {
			content += m.Size.Content
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", names, shortID(s.ID), human(s.Size), human(content), used)
		var shown []image.ManifestSummary
		for _, m := range s.Manifests {
			if m.Kind == image.ManifestKindImage && m.ImageData != nil {
				shown = append(shown, m)
			}
		}
		for i, m := range shown {
			branch := "├─"
			if i == len(shown)-1 {
				branch = "└─"
			}
			used := ""
			if len(m.ImageData.Containers) > 0 {
				used = "yes"
			}
			total := human(m.Size.Total)
			if !m.Available {
				total = "not here"
			}
			fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\t%s\n", branch, platforms.FormatAll(m.ImageData.Platform), shortID(m.ID), total, human(m.Size.Content), used)
		}
	}
	return w.Flush()
}
