package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/version"
)

// verb is an entry of the command tree that is not built until it is asked for.
type verb struct {
	name    string
	short   string
	hidden  bool // not in the help: other programs call it
	make    func(*App) *cobra.Command
	aliases []string
	group   []verb // set instead of make: a noun with its own verbs
}

func (v verb) is(name string) bool { return v.name == name || slices.Contains(v.aliases, name) }

// root makes the root command with as little below it as the arguments allow.
func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use:                   "shoal [OPTIONS] COMMAND",
		Short:                 "Containers that just work, fast, and say why when they do not",
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:                  cobra.ArbitraryArgs,
	}
	var showVersion bool
	a.globalFlags(root.Flags())
	root.Flags().BoolVarP(&showVersion, "version", "v", false, "Print version information and quit")
	root.Flags().BoolP("help", "h", false, "Print usage")
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	root.SetHelpFunc(a.help)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{cmd: cmd, err: wantedInstead(err), code: errs.ExitEngine}
	})
	root.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case showVersion:
			_, err := fmt.Fprintln(a.Out, "Shoal version "+version.String())
			return err
		case len(args) > 0: // after a "--"
			return unknownCommand(cmd, args[0], verbs())
		}
		a.help(cmd, nil)
		return nil
	}
	words := commandWords(a.args)
	a.fill(root, verbs(), words)
	if asked(words) {
		a.completeFlags(root)
	}
	if asked(words) && len(a.args) > 1 { // a shell, not somebody who writes manual pages
		for name := range a.plugins() {
			root.AddCommand(&cobra.Command{Use: name, DisableFlagParsing: true, Short: "A plug-in of the docker command line", Run: func(*cobra.Command, []string) {}})
		}
	}
	if len(words) > 0 && !root.HasSubCommands() {
		root.AddCommand(a.elsewhere(words[0]))
	}
	return root
}

// fill adds to parent the commands that the words on the command line lead to: one where the word is known.
func (a *App) fill(parent *cobra.Command, list []verb, words []string) {
	if len(words) == 0 {
		return // the help is written from the list
	}
	for _, v := range list {
		if v.is(words[0]) {
			parent.AddCommand(a.build(v, words[1:]))
			return
		}
	}
	if !asked(words) {
		return // unknown; the parent says so, from the list
	}
	for _, v := range list { // shell completion may ask for any
		cmd := a.build(v, words)
		parent.AddCommand(cmd)
		a.completions(cmd)
	}
}

func (a *App) build(v verb, rest []string) *cobra.Command {
	if v.group == nil {
		cmd := v.make(a)
		cmd.Short, cmd.Aliases, cmd.DisableFlagsInUseLine, cmd.Hidden = v.short, v.aliases, true, v.hidden
		if cmd.Flags().Lookup("help") == nil {
			if cmd.Flags().ShorthandLookup("h") == nil {
				cmd.Flags().BoolP("help", "h", false, "Print usage")
			} else {
				cmd.Flags().Bool("help", false, "Print usage")
			}
		}
		return cmd
	}
	cmd := &cobra.Command{Use: v.name + " COMMAND", Short: v.short, Aliases: v.aliases, DisableFlagsInUseLine: true, Args: cobra.ArbitraryArgs}
	cmd.Flags().BoolP("help", "h", false, "Print usage")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0], v.group)
		}
		a.help(cmd, nil)
		return nil
	}
	a.fill(cmd, v.group, rest)
	return cmd
}

// asked says whether a shell asks for completions.
func asked(words []string) bool { return len(words) > 0 && strings.HasPrefix(words[0], "__") }

// commandWords gives the words that choose a command: the first two arguments that are no flags or values of flags.
func commandWords(args []string) []string {
	var words []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return words
		case strings.HasPrefix(arg, "__"):
			// Shell completion: what follows is the line being typed.
			return []string{arg}
		case !strings.HasPrefix(arg, "-") || arg == "-":
			if words = append(words, arg); len(words) == 2 {
				return words
			}
		case len(words) == 0 && takesValue(arg):
			i++
		}
	}
	return words
}

func takesValue(arg string) bool {
	switch arg {
	case "--config", "-c", "--context", "-H", "--host", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey":
		return true
	}
	return false
}

func (a *App) globalFlags(fs *pflag.FlagSet) {
	g := &a.global
	dir := client.DefaultConfigDir()
	fs.StringVar(&g.ConfigDir, "config", dir, "Location of client config files")
	fs.StringVarP(&g.Context, "context", "c", "", `Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "shoal context use")`)
	fs.BoolVarP(&a.debug, "debug", "D", false, "Enable debug mode")
	fs.VarP((*oneHost)(&g.Host), "host", "H", "Daemon socket to connect to")
	fs.VarP(&logLevel{a}, "log-level", "l", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.TLS.Enabled, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&g.TLS.Verify, "tlsverify", false, "Use TLS and verify the remote")
	fs.StringVar(&g.TLS.CA, "tlscacert", "", "Trust certs signed only by this CA (default \""+filepath.Join(dir, "ca.pem")+"\")")
	fs.StringVar(&g.TLS.Cert, "tlscert", "", "Path to TLS certificate file (default \""+filepath.Join(dir, "cert.pem")+"\")")
	fs.StringVar(&g.TLS.Key, "tlskey", "", "Path to TLS key file (default \""+filepath.Join(dir, "key.pem")+"\")")
}

// logLevel is a flag with the names of log levels: debug shows what --debug shows, and beyond that the command line has
// nothing to log.
type logLevel struct{ a *App }

func (l *logLevel) String() string { return "info" }
func (l *logLevel) Type() string   { return "string" }
func (l *logLevel) Set(v string) error {
	switch v {
	case "debug":
		l.a.debug = true
	case "info", "warn", "error", "fatal":
	default:
		return errs.New(errs.Invalid, "unable to parse logging level: %s; choose debug, info, warn, error or fatal", v)
	}
	return nil
}

// oneHost is a flag that may be given once.
type oneHost string

func (h *oneHost) String() string { return string(*h) }
func (h *oneHost) Type() string   { return "list" }
func (h *oneHost) Set(v string) error {
	if *h != "" && string(*h) != v {
		return errs.New(errs.Invalid, "specify only one -H: %q and %q were given", string(*h), v)
	}
	*h = oneHost(v)
	return nil
}

func unknownCommand(parent *cobra.Command, name string, list []verb) error {
	msg := fmt.Sprintf("shoal: unknown command: %s %s\n", parent.CommandPath(), name)
	if near := nearest(name, list); len(near) > 0 {
		msg += "\nDid you mean " + strings.Join(near, " or ") + "?\n"
	}
	return exit{code: errs.ExitFailure, err: fmt.Errorf("%s\nRun '%s --help' for more information", msg, parent.CommandPath())}
}

// nearest lists the verbs that name may have been meant to be, best first, at most three.
func nearest(name string, list []verb) []string {
	type candidate struct {
		name string
		d    int
	}
	var found []candidate
	for _, v := range list {
		for _, n := range append([]string{v.name}, v.aliases...) {
			d := distance(strings.ToLower(name), n)
			if len(name) > 1 && strings.HasPrefix(n, name) {
				d = min(d, 1)
			}
			if d <= 2 && d < len(n) {
				found = append(found, candidate{"'" + n + "'", d})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.d - b.d })
	var out []string
	for _, c := range found {
		if len(out) < 3 && c.d <= found[0].d {
			out = append(out, c.name)
		}
	}
	return out
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that make a of b (Damerau).
func distance(a, b string) int {
	prev2, prev := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}

// renamed makes a verb that has another name under its noun: ps is container ls.
func renamed(name string, make func(*App) *cobra.Command) func(*App) *cobra.Command {
	return func(a *App) *cobra.Command {
		cmd := make(a)
		_, rest, _ := strings.Cut(cmd.Use, " ")
		cmd.Use = name + " " + rest
		return cmd
	}
}

// wantedInstead adds to the complaint of a flag what it takes, where the flag's own words do not say it.
func wantedInstead(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	want := map[string]string{"bytes": "a number with a unit, such as 512m or 2g", "ulimit": "NAME=SOFT[:HARD], such as nofile=1024:2048",
		"decimal": "a number, such as 0.5 or 2", "duration": "a time, such as 500ms, 10s or 1m30s", "int": "a whole number", "int64": "a whole number"}[bad.GetFlag().Value.Type()]
	switch bad.GetFlag().Name {
	case "add-host":
		want = "NAME:ADDRESS, such as db:192.0.2.7, or NAME:host-gateway"
	case "sysctl":
		want = "NAME=VALUE of a setting that belongs to a namespace, such as net.core.somaxconn=1024"
	}
	if want == "" {
		return err
	}
	return fmt.Errorf("%w; want %s", err, want)
}
