package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

func (a *App) say(s string) { fmt.Fprintln(a.Out, s) }

func (a *App) warn(format string, args ...any) {
	fmt.Fprintf(a.Err, "WARNING: "+format+"\n", args...)
}

// warnings shows what the engine wants said.
func (a *App) warnings(list []string) {
	for _, w := range list {
		a.warn("%s", w)
	}
}

// confirm asks a yes-or-no question; no answer is no.
func (a *App) confirm(question string) error {
	fmt.Fprintf(a.Out, "%s [y/N] ", question)
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(line)); a == "y" || a == "yes" {
		return nil
	}
	if err != nil {
		fmt.Fprintln(a.Out)
	}
	return exit{code: errs.ExitFailure, err: errs.New(errs.Canceled, "operation cancelled; --force answers yes")}
}
