package cli

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/opts"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/progress"
)

func importCommand(a *App) *cobra.Command {
	var o moby.ImageImportOptions
	var platform string
	changes := opts.NewListOpts(nil)
	cmd := a.command("import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", count(1, 2), func(ctx context.Context, api *client.Client, args []string) error {
		src := moby.ImageImportSource{SourceName: args[0]}
		var bar *progress.Bytes
		switch {
		case args[0] == "-":
			src.Source = a.In
		case strings.HasPrefix(args[0], "http://"), strings.HasPrefix(args[0], "https://"):
			// The engine fetches it.
		default:
			f, size, err := a.openInput(args[0], "")
			if err != nil {
				return err
			}
			defer f.Close()
			bar = progress.NewBytes(a.screen(a.Err), "Sending", size, time.Now)
			src.SourceName, src.Source = "-", bar.Reader(f)
		}
		ref := ""
		if len(args) == 2 {
			ref = args[1]
		}
		o.Changes = changes.GetSlice()
		if platform != "" {
			p, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			o.Platform = *p
		}
		res, err := api.ImageImport(ctx, src, ref, o)
		if bar != nil {
			bar.Done()
		}
		if err != nil {
			return err
		}
		defer res.Close()
		return a.screen(a.Out).Messages(res, nil)
	})
	fs := cmd.Flags()
	fs.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	fs.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	return cmd
}
