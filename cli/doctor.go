package cli

import (
	"context"
	"strings"
	"time"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/lib/errs"
)

func doctorCommand(a *App) *cobra.Command {
	var f string
	var o doctor.Options
	cmd := &cobra.Command{Use: "doctor [OPTIONS]", Args: count(0, 0)}
	cmd.Long = "Look at this machine and its engine and say what is missing or unsafe, why, and what to do about it.\n" +
		"Nothing is changed. The exit code is 1 when something stands in the way of containers.\n" +
		"\"shoal doctor bundle\" writes an archive for support, without secrets."
	cmd.Flags().StringVar(&f, "format", "", "Format output: json, or text for people (default)")
	cmd.Flags().StringVar(&o.DataRoot, "data-root", "", `The engine's data directory to look at (default: that of the engine here, else "/var/lib/shoal")`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f != "" && f != "text" && f != "json" {
			return badFlag("--format %q: use json or text", f)
		}
		o.AskDNS = true
		r := a.examine(cmd.Context(), o)
		var err error
		if f == "json" {
			err = doctor.WriteJSON(a.Out, r)
		} else {
			err = doctor.WriteText(a.Out, r)
		}
		if err != nil {
			return err
		}
		for _, found := range r.Findings {
			if found.Severity == doctor.Error {
				return exit{code: errs.ExitFailure}
			}
		}
		return nil
	}
	cmd.AddCommand(a.bundleCommand())
	return cmd
}

// examine looks at this machine, and asks the engine on it about itself.
func (a *App) examine(ctx context.Context, o doctor.Options) doctor.Report {
	api, err := a.API()
	here := err == nil && strings.HasPrefix(api.Endpoint().Host, "unix://")
	if here && o.DataRoot == "" {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // a daemon that hangs is looked at all the same
		res, err := api.Info(ctx, moby.InfoOptions{})
		cancel()
		if err == nil {
			o.DataRoot = res.Info.DockerRootDir
		}
	}
	facts := doctor.Collect(ctx, o)
	if here {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		facts.Engine = &doctor.Engine{}
		if err := api.Call(ctx, "GET", "/shoal/doctor?only=engine", nil, facts.Engine); err != nil {
			facts.Engine = &doctor.Engine{Down: api.Explain(err).Error()}
		}
	}
	return doctor.Report{Findings: doctor.Evaluate(facts), Facts: facts}
}
