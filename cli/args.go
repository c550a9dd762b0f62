package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plural"
)

// count makes a check of the number of arguments; most < 0 means any number.
func count(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var want string
		switch {
		case len(args) >= least && (most < 0 || len(args) <= most):
			return nil
		case least == most && least == 0:
			want = "accepts no arguments"
		case least == most:
			want = "requires " + plural.Of(least, "argument")
		case len(args) < least && most < 0:
			want = "requires at least " + plural.Of(least, "argument")
		case len(args) < least:
			want = fmt.Sprintf("requires at least %d and at most %s", least, plural.Of(most, "argument"))
		default:
			want = "requires at most " + plural.Of(most, "argument")
		}
		return usageError{cmd: cmd, code: errs.ExitFailure, err: fmt.Errorf("shoal: '%s' %s", cmd.CommandPath(), want)}
	}
}
