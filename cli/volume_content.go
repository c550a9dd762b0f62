package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"time"

	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/progress"
	"github.com/shoalhq/shoal/lib/errs"
)

func volumeBackupCommand(a *App) *cobra.Command {
	var output, image string
	var pause bool
	cmd := a.command("backup [OPTIONS] VOLUME", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		q := url.Values{}
		if pause {
			q.Set("pause", "1")
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		if image != "" {
			if output != "" {
				return badFlag("--image and --output: a backup goes to one of them")
			}
			q.Set("image", image)
			return a.volumeWork(ctx, api, args[0], "backup", q, nil)
		}
		if output == "" && terminalOf(a.Out) != nil {
			return errs.New(errs.Invalid, "the archive is not written to a terminal: name a file with -o FILE, redirect it with > FILE, or make an image with --image NAME")
		}
		r, err := api.Stream(ctx, "GET", "/shoal/volumes/"+url.PathEscape(args[0])+"/backup?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		defer r.Close()
		return a.saveTo(output, "Saving", r)
	})
	cmd.Long = "Write the content of a volume to a tar archive (to the standard output, or a file) or to an image. Owners, modes, times,\n" +
		"extended attributes, hard links, devices and holes are kept. The image has the content in /volume."
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	fs.StringVar(&image, "image", "", "Make an image of this name instead of an archive")
	fs.BoolVar(&pause, "pause", false, "Pause the containers that run with the volume meanwhile")
	return cmd
}

func volumeRestoreCommand(a *App) *cobra.Command {
	var input, image string
	var replace bool
	labels := opts.NewListOpts(opts.ValidateLabel)
	cmd := a.command("restore [OPTIONS] VOLUME", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		q := url.Values{"label": labels.GetSlice()}
		if replace {
			q.Set("replace", "1")
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		if image != "" {
			if input != "" {
				return badFlag("--image and --input: a volume is restored from one of them")
			}
			q.Set("image", image)
			return a.volumeWork(ctx, api, args[0], "restore", q, nil)
		}
		in, size, err := a.openInput(input, "no archive is given: name it with -i FILE, redirect it with < FILE, or use --image NAME")
		if err != nil {
			return err
		}
		defer in.Close()
		bar := progress.NewBytes(a.screen(a.Err), "Sending", size, time.Now)
		defer bar.Done()
		return a.volumeWork(ctx, api, args[0], "restore", q, bar.Reader(in))
	})
	cmd.Long = "Make a volume of a tar archive, which may be packed with gzip or zstd, or of an image that has the directory /volume.\n" +
		"The volume is not to be seen before all of it is on the disk."
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from an archive file, instead of STDIN")
	fs.StringVar(&image, "image", "", "Read from an image instead of an archive")
	fs.BoolVar(&replace, "replace", false, "Replace the content of a volume that exists; no container may run with it")
	fs.Var(&labels, "label", "Set metadata for the volume")
	return cmd
}

func volumeCloneCommand(a *App) *cobra.Command {
	var pause bool
	labels := opts.NewListOpts(opts.ValidateLabel)
	cmd := a.command("clone [OPTIONS] VOLUME NEW-VOLUME", count(2, 2), func(ctx context.Context, api *client.Client, args []string) error {
		q := url.Values{"label": labels.GetSlice(), "to": {args[1]}}
		if pause {
			q.Set("pause", "1")
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		return a.volumeWork(ctx, api, args[0], "clone", q, nil)
	})
	cmd.Long = "Make a volume with a copy of another one's content. Filesystems that share blocks between files (xfs, btrfs) do so."
	fs := cmd.Flags()
	fs.Var(&labels, "label", "Set metadata for the new volume, instead of the old one's")
	fs.BoolVar(&pause, "pause", false, "Pause the containers that run with the volume meanwhile")
	return cmd
}

// volumeWork lets the engine work with a volume's content, shows how far it is, and prints what was made.
func (a *App) volumeWork(ctx context.Context, api *client.Client, name, verb string, q url.Values, body io.Reader) error {
	r, err := api.Stream(ctx, "POST", "/shoal/volumes/"+url.PathEscape(name)+"/"+verb+"?"+q.Encode(), body)
	if err != nil {
		return err
	}
	defer r.Close()
	var made struct{ ID string }
	s := a.screen(a.Err)
	if s.Width == 0 {
		s.Out = io.Discard // progress is for people
	}
	if err := s.Messages(r, func(aux json.RawMessage) { json.Unmarshal(aux, &made) }); err != nil {
		return err
	}
	if made.ID == "" {
		return errs.New(errs.Unavailable, "the engine ended before the %s of volume %s was done: nothing was made", verb, name)
	}
	a.say(made.ID)
	return nil
}
