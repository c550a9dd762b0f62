package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/lib/errs"
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
			want = fmt.Sprintf("requires %d %s", least, plural("argument", least))
		case len(args) < least && most < 0:
			want = fmt.Sprintf("requires at least %d %s", least, plural("argument", least))
		case len(args) < least:
			want = fmt.Sprintf("requires at least %d and at most %d %s", least, most, plural("argument", most))
		default:
			want = fmt.Sprintf("requires at most %d %s", most, plural("argument", most))
		}
		return usageError{cmd: cmd, code: errs.ExitFailure, err: fmt.Errorf("shoal: '%s' %s", cmd.CommandPath(), want)}
	}
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
