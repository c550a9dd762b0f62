package cli

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// useLine is how a command is called, with the names of what stands above it.
func useLine(cmd *cobra.Command) string {
	if p := cmd.Parent(); p != nil {
		return p.CommandPath() + " " + cmd.Use
	}
	return cmd.Use
}

// help prints what --help prints.
func (a *App) help(cmd *cobra.Command, _ []string) {
	w := bufio.NewWriter(a.Out)
	defer w.Flush()
	fmt.Fprintf(w, "Usage:  %s\n", useLine(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(w, "\n%s\n", text)
	if names := alsoKnownAs(cmd); len(names) > 1 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(names, ", "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	list, top := below(cmd)
	if top {
		writeVerbs(w, "Common Commands", list, func(v verb) bool { return slices.Contains(common, v.name) })
		writeVerbs(w, "Management Commands", list, func(v verb) bool { return v.group != nil || v.name == "oci" })
		writeVerbs(w, "Commands", list, func(v verb) bool { return v.group == nil && v.name != "oci" && !slices.Contains(common, v.name) })
		if names := slices.Sorted(maps.Keys(a.plugins())); len(names) > 0 {
			fmt.Fprintf(w, "\nPlug-ins of the docker command line:\n  %s\n", strings.Join(names, ", "))
		}
	} else {
		writeVerbs(w, "Commands", list, func(verb) bool { return true })
	}
	if flags := cmd.LocalFlags().FlagUsagesWrapped(a.width()); flags != "" {
		title := "Options"
		if top {
			title = "Global Options"
		}
		fmt.Fprintf(w, "\n%s:\n%s", title, flags)
	}
	if len(list) > 0 {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
}

func (a *App) width() int {
	if t := terminalOf(a.Out); t != nil {
		if _, cols, err := t.Size(); err == nil && cols > 40 {
			return int(cols) - 1
		}
	}
	return 80
}

// below lists the verbs under a command and whether it is the root.
func below(cmd *cobra.Command) ([]verb, bool) {
	list := verbs()
	if cmd.Parent() == nil {
		return list, true
	}
	if cmd.Parent().Parent() == nil {
		for _, v := range list {
			if v.is(cmd.Name()) {
				return v.group, false
			}
		}
	}
	return nil, false
}

func writeVerbs(w io.Writer, title string, list []verb, want func(verb) bool) {
	list = slices.DeleteFunc(slices.Clone(list), func(v verb) bool { return !want(v) || v.hidden })
	width := 11
	for i, v := range list {
		if i == 0 {
			fmt.Fprintf(w, "\n%s:\n", title)
		}
		width = max(width, len(v.name))
	}
	for _, v := range list {
		fmt.Fprintf(w, "  %-*s %s\n", width, v.name, v.short)
	}
}

// alsoKnownAs lists all the ways to call a command, as `container ls` is `ps`; nil when there is one only.
func alsoKnownAs(cmd *cobra.Command) []string {
	if !cmd.HasParent() {
		return nil
	}
	noun := ""
	if cmd.Parent().HasParent() {
		noun = cmd.Parent().Name()
	}
	for _, v := range verbs() {
		for _, sub := range v.group {
			twin := twinOf(v.name, sub.name)
			if !(noun == v.name && sub.name == cmd.Name()) && !(noun == "" && twin == cmd.Name()) {
				continue
			}
			var out []string
			for _, n := range append([]string{sub.name}, sub.aliases...) {
				out = append(out, "shoal "+v.name+" "+n)
			}
			if twin != "" {
				out = append(out, "shoal "+twin)
			}
			return out
		}
	}
	return nil
}
