package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/doctor/explain"
)

func explainCommand(a *App) *cobra.Command {
	var form, kind string
	cmd := a.command("explain [OPTIONS] CONTAINER|IMAGE|NETWORK|PORT", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		if form != "" && form != "text" && form != "json" {
			return badFlag("--format %q: use json or text", form)
		}
		ask := types.Explain{Name: args[0], Type: kind}
		if kind == "image" || strings.ContainsAny(args[0], "/:") {
			auth, err := a.authFor(args[0])
			if err != nil {
				return err
			}
			ask.RegistryAuth = auth
		}
		var r explain.Report
		if err := api.Call(ctx, "POST", "/shoal/explain", ask, &r); err != nil {
			return err
		}
		if form == "json" {
			e := json.NewEncoder(a.Out)
			e.SetIndent("", "    ")
			e.SetEscapeHTML(false)
			return e.Encode(r)
		}
		_, err := fmt.Fprint(a.Out, format.PlainLines(r.Text()))
		return err
	})
	cmd.Long = "Say why a container stopped, restarts, or cannot be reached; why an image cannot be pulled or removed; why a network\n" +
		"cannot be removed; who has a port of this machine. With what shows it, and what to do."
	cmd.Example = "  shoal explain web\n  shoal explain 8080\n  shoal explain --type image registry.example.com/app:2"
	cmd.Flags().StringVar(&kind, "type", "", "What the name is of: container, image, network or port (default: the first that there is)")
	cmd.Flags().StringVar(&form, "format", "", "Format output: json, or text for people (default)")
	return cmd
}
