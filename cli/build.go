package cli

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/buildflags"
	"github.com/shoalhq/shoal/lib/errs"
)

// buildCommand reads the flags and starts the build client, which is part of the program shoald: BuildKit's client would
// make every start of this program some milliseconds slower and twice as large.
func buildCommand(a *App) *cobra.Command {
	var r buildflags.Request
	var cmd *cobra.Command
	cmd = a.command("build [OPTIONS] PATH | URL | -", count(1, 1), func(_ context.Context, api *client.Client, args []string) error {
		if err := buildflags.Refused(cmd.Flags()); err != nil {
			return err
		}
		r.Context = args[0]
		for name, value := range a.proxyVars(api.DaemonHost()) {
			if value != nil && !slices.ContainsFunc(r.Source.Args, func(given string) bool { return given == name || strings.HasPrefix(given, name+"=") }) {
				r.Source.Args = append(r.Source.Args, name+"="+*value)
			}
		}
		r.Server = buildflags.Server{Host: a.global.Host, Context: a.global.Context, ConfigDir: a.global.ConfigDir, TLS: a.global.TLS}
		return runBuildClient(&r)
	})
	r.Bind(cmd.Flags())
	return cmd
}

// runBuildClient becomes the build client.
func runBuildClient(r *buildflags.Request) error {
	path, err := daemonBinary()
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return errs.Wrap(syscall.Exec(path, []string{"shoald", "build-client", string(data)}, os.Environ()), "start %s", path)
}
