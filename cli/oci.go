package cli

import (
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/lib/errs"
)

// ociCommand becomes `shoald oci`, which has its own verbs, options and help: the tools are large, and the command line
// must stay small.
func ociCommand(a *App) *cobra.Command {
	cmd := &cobra.Command{Use: "oci COMMAND", DisableFlagParsing: true}
	cmd.Long = "Tools for OCI images, bundles, runtimes and configurations:\n" +
		"image validate, image unpack, bundle validate, runtime validate, spec generate.\n" +
		"They exit with 0 when all is well, 1 when something is wrong with what they looked at, 2 when they could not look."
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
			a.help(cmd, nil)
			return nil
		}
		path, err := daemonBinary()
		if err != nil {
			return err
		}
		return errs.Wrap(syscall.Exec(path, append([]string{"shoald", "oci"}, args...), os.Environ()), "start %s", path)
	}
	return cmd
}
