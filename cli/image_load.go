package cli

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"time"

	moby "github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/progress"
	"github.com/shoalhq/shoal/lib/errs"
)

func platformList(list []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range list {
		p, err := parsePlatform(s)
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}

func loadCommand(a *App) *cobra.Command {
	var input string
	var platforms []string
	var quiet bool
	cmd := a.command("load [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		in, size, err := a.openInput(input, "requested load from stdin, but stdin is empty; name the archive with -i FILE or redirect it with < FILE")
		if err != nil {
			return err
		}
		defer in.Close()
		list, err := platformList(platforms)
		if err != nil {
			return err
		}
		o := []moby.ImageLoadOption{moby.ImageLoadWithQuiet(quiet || terminalOf(a.Out) == nil)}
		if len(list) > 0 {
			o = append(o, moby.ImageLoadWithPlatforms(list...))
		}
		s := a.screen(a.Err)
		if quiet {
			s.Width = 0
		}
		bar := progress.NewBytes(s, "Sending", size, time.Now)
		res, err := api.ImageLoad(ctx, bar.Reader(bufio.NewReaderSize(in, 1<<20)), o...)
		bar.Done()
		if err != nil {
			return err
		}
		defer res.Close()
		return a.messagesOrText(res)
	})
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	fs.StringSliceVar(&platforms, "platform", nil, `Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

// messagesOrText shows an answer that is progress messages from newer engines and plain text from old ones.
func (a *App) messagesOrText(r io.Reader) error {
	b := bufio.NewReader(r)
	head, _ := b.Peek(1)
	if bytes.Equal(head, []byte("{")) {
		return a.screen(a.Out).Messages(b, nil)
	}
	_, err := io.Copy(a.Out, b)
	return err
}

func saveCommand(a *App) *cobra.Command {
	var output string
	var platforms []string
	cmd := a.command("save [OPTIONS] IMAGE [IMAGE...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		if output == "" && terminalOf(a.Out) != nil {
			return errs.New(errs.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		list, err := platformList(platforms)
		if err != nil {
			return err
		}
		var o []moby.ImageSaveOption
		if len(list) > 0 {
			o = append(o, moby.ImageSaveWithPlatforms(list...))
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		r, err := api.ImageSave(ctx, args, o...)
		if err != nil {
			return err
		}
		defer r.Close()
		return a.saveTo(output, "Saving", r)
	})
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	fs.StringSliceVar(&platforms, "platform", nil, `Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}
