package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/errs"
)

// Where Docker and the machine's containerd keep their data unless told otherwise.
const (
	dockerRoot     = "/var/lib/docker"
	containerdRoot = "/var/lib/containerd"
)

func importDockerCommand(a *App) *cobra.Command {
	var in types.ImportRequest
	cmd := a.command("import-docker [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		if _, err := os.Stat(containerdRoot); in.Containerd == "" && in.From == dockerRoot && err == nil {
			in.Containerd = containerdRoot
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		body, err := json.Marshal(in)
		if err != nil {
			return err
		}
		r, err := api.Stream(ctx, "POST", "/shoal/import-docker", bytes.NewReader(body))
		if err != nil {
			return err
		}
		defer r.Close()
		return a.importLines(r)
	})
	cmd.Long = "Take over images, volumes, networks and containers of a stopped Docker on the engine's machine. Nothing of Docker's is\n" +
		"changed; what is here already stays as it is, so that the command can be repeated. Containers are made stopped.\n" +
		"Stop Docker first: systemctl stop docker.socket docker"
	fs := cmd.Flags()
	fs.StringVar(&in.From, "from", dockerRoot, "Docker's data root")
	fs.StringVar(&in.Containerd, "containerd", "", "Root of the containerd with the images, for a Docker that keeps them there (default "+containerdRoot+" with Docker's default root)")
	fs.BoolVar(&in.DryRun, "dry-run", false, "Only say what would be taken over")
	fs.BoolVar(&in.Move, "move", false, "Move the content of volumes instead of copying it: Docker has them empty afterwards")
	return cmd
}

// importLines shows what became of each thing, and fails when something failed.
func (a *App) importLines(r io.Reader) error {
	d := json.NewDecoder(r)
	counts := map[string]int{}
	for {
		var l types.ImportLine
		if err := d.Decode(&l); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return errs.New(errs.Unavailable, "the engine ended before all was taken over (%w); repeat the command", err)
		}
		if l.Error != "" {
			return errors.New("Error response from daemon: " + l.Error)
		}
		if l.Done {
			break
		}
		counts[l.Result]++
		text := fmt.Sprintf("%-8s  %-9s  %s", l.Result, l.Kind, l.Name)
		if l.Detail != "" {
			text += "  (" + l.Detail + ")"
		}
		a.say(format.PlainLines(text))
	}
	fmt.Fprintf(a.Err, "%d imported, %d planned, %d were here, %d skipped, %d failed\n", counts["imported"], counts["planned"], counts["present"], counts["skipped"], counts["failed"])
	if counts["failed"] > 0 {
		return exit{code: errs.ExitFailure}
	}
	return nil
}
