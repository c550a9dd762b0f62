package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/lib/errs"
)

// repairs asks the daemon what it found changed behind its back. The doctor works without a daemon too.
func repairs(ctx context.Context, a *App) []doctor.Repair {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	api, err := a.API()
	if err != nil {
		return nil
	}
	var r doctor.Report
	if err := api.Call(ctx, "GET", "/shoal/doctor", nil, &r); err != nil {
		return nil
	}
	return r.Facts.Repairs
}

func doctorCommand(a *App) *cobra.Command {
	var f string
	var o doctor.Options
	cmd := &cobra.Command{Use: "doctor [OPTIONS]", Args: count(0, 0)}
	cmd.Long = "Look at this machine and say what it lacks for running containers, why, and what to do about it.\n" +
		"Nothing is changed. The exit code is 1 when something stands in the way of containers."
	cmd.Flags().StringVar(&f, "format", "", "Format output: json, or text for people (default)")
	cmd.Flags().StringVar(&o.DataRoot, "data-root", "", `The engine's data directory to look at (default "/var/lib/shoal")`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f != "" && f != "text" && f != "json" {
			return badFlag("--format %q: use json or text", f)
		}
		facts := doctor.Collect(cmd.Context(), o)
		facts.Repairs = repairs(cmd.Context(), a)
		findings := doctor.Evaluate(facts)
		var err error
		if f == "json" {
			err = doctor.WriteJSON(a.Out, doctor.Report{Findings: findings, Facts: facts})
		} else {
			err = doctor.WriteText(a.Out, findings)
		}
		if err != nil {
			return err
		}
		for _, found := range findings {
			if found.Severity == doctor.Error {
				return exit{code: errs.ExitFailure}
			}
		}
		return nil
	}
	return cmd
}
