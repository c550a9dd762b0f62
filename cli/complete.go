package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
)

// What may follow is told by the usage line of a verb: its placeholders name the kind of thing. Flags are in complete_flags.go.

// completionTime is how long an engine may take to answer while somebody waits for the cursor.
const completionTime = 4 * time.Second

type completer = func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// names lists things of one kind for a verb.
type names func(a *App, ctx context.Context, verb string) ([]string, error)

// kinds are the placeholders of usage lines that stand for something that has a name already.
var kinds = map[string]names{
	"CONTAINER": containerNames, "IMAGE": imageNames, "SOURCE_IMAGE[:TAG]": imageNames, "NAME[:TAG]": imageNames, "NAME[:TAG|@DIGEST]": imageNames,
	"REPOSITORY[:TAG]": imageNames, "NETWORK": networkNames, "VOLUME": volumeNames, "CONTEXT": contextNames, "SOCKET": socketNames, "NAME|ID": anyNames,
	"CONTAINER|IMAGE|NETWORK|PORT": anyNames,
}

// makesNew are the verbs whose first placeholder is a name that nothing has yet.
var makesNew = []string{"context create", "context import", "network create", "volume create", "volume restore", "socket create"}

// wanted says which containers a verb works on; verbs that are not here work on all.
var wanted = map[string]func(container.ContainerState) bool{
	"start": stopped, "stop": running, "kill": running, "pause": running, "exec": running, "attach": running, "top": running,
	"stats": running, "port": running, "ports": running,
	"unpause": func(s container.ContainerState) bool { return s == container.StatePaused },
}

func running(s container.ContainerState) bool { return s == container.StateRunning }
func stopped(s container.ContainerState) bool {
	return s != container.StateRunning && s != container.StatePaused
}

// completions gives cmd what shell completion asks for. It is called only when a shell asks.
func (a *App) completions(cmd *cobra.Command) {
	a.completeFlags(cmd)
	if cmd.ValidArgsFunction != nil || cmd.ValidArgs != nil || cmd.DisableFlagParsing {
		return
	}
	line, _, _ := strings.Cut(cmd.Use, "\n")
	words := strings.Fields(strings.ReplaceAll(line, "[OPTIONS] ", ""))[1:]
	if len(words) > 0 && slices.Contains(makesNew, cmd.CommandPath()) {
		words[0] = "NEW"
	}
	if cmd.Name() == "cp" {
		cmd.ValidArgsFunction = a.completeCopy
		return
	}
	cmd.ValidArgsFunction = a.completeArgs(words)
}

// completeArgs completes arguments by the placeholders of a usage line.
func (a *App) completeArgs(words []string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		i := len(args)
		if len(words) == 0 || i >= len(words) && !strings.HasSuffix(placeholder(words[len(words)-1]), "...") {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		word := placeholder(words[min(i, len(words)-1)])
		list, ok := kinds[strings.TrimSuffix(word, "...")]
		if !ok { // a file, a command in a container, a new name
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.listNames(cmd, list, args)
	}
}

// placeholder takes the brackets off that say a word may be left out.
func placeholder(word string) string {
	if strings.HasPrefix(word, "[") && strings.HasSuffix(word, "]") {
		return word[1 : len(word)-1]
	}
	return word
}

// listNames asks for names and leaves out those that were given. An engine that does not answer has none, silently.
func (a *App) listNames(cmd *cobra.Command, list names, given []string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	found, _ := list(a, ctx, cmd.Name())
	return slices.DeleteFunc(found, func(n string) bool { return slices.Contains(given, n) }), cobra.ShellCompDirectiveNoFileComp
}

// completeCopy offers containers, which need a path after them, and files.
func (a *App) completeCopy(cmd *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if strings.ContainsAny(to, "/.:") || len(args) == 1 && strings.Contains(args[0], ":") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	found, _ := a.listNames(cmd, containerNames, nil)
	for i := range found {
		found[i] += ":"
	}
	return found, cobra.ShellCompDirectiveNoSpace
}

func containerNames(a *App, ctx context.Context, verb string) ([]string, error) {
	api, err := a.API()
	if err != nil {
		return nil, err
	}
	res, err := api.ContainerList(ctx, moby.ContainerListOptions{All: true})
	var out []string
	for _, c := range res.Items {
		if want := wanted[verb]; len(c.Names) > 0 && (want == nil || want(c.State)) {
			out = append(out, strings.TrimPrefix(c.Names[0], "/"))
		}
	}
	return out, err
}

func imageNames(a *App, ctx context.Context, _ string) ([]string, error) {
	api, err := a.API()
	if err != nil {
		return nil, err
	}
	res, err := api.ImageList(ctx, moby.ImageListOptions{})
	var out []string
	for _, i := range res.Items {
		out = append(out, i.RepoTags...)
	}
	return out, err
}

func networkNames(a *App, ctx context.Context, _ string) ([]string, error) {
	api, err := a.API()
	if err != nil {
		return nil, err
	}
	res, err := api.NetworkList(ctx, moby.NetworkListOptions{})
	var out []string
	for _, n := range res.Items {
		out = append(out, n.Name)
	}
	return out, err
}

func volumeNames(a *App, ctx context.Context, _ string) ([]string, error) {
	api, err := a.API()
	if err != nil {
		return nil, err
	}
	res, err := api.VolumeList(ctx, moby.VolumeListOptions{})
	var out []string
	for _, v := range res.Items {
		out = append(out, v.Name)
	}
	return out, err
}

func contextNames(a *App, _ context.Context, _ string) ([]string, error) {
	stored, err := client.ListContexts(a.configDir())
	out := []string{"default"}
	for _, c := range stored {
		out = append(out, c.Name)
	}
	return out, err
}

func socketNames(a *App, ctx context.Context, _ string) ([]string, error) {
	api, err := a.API()
	if err != nil {
		return nil, err
	}
	list, err := a.sockets(ctx, api)
	var out []string
	for _, s := range list {
		out = append(out, s.Name)
	}
	return out, err
}

// anyNames are those of containers, images, networks and volumes.
func anyNames(a *App, ctx context.Context, _ string) ([]string, error) {
	var out []string
	for _, list := range []names{containerNames, imageNames, networkNames, volumeNames} {
		found, err := list(a, ctx, "")
		if err != nil {
			return out, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func completionCommand(a *App) *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Args: count(1, 1),
		Example:   "  source <(shoal completion bash)\n  shoal completion zsh > ~/.zfunc/_shoal\n  shoal completion fish > ~/.config/fish/completions/shoal.fish",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return BashCompletion(root, a.Out)
			case "zsh":
				return root.GenZshCompletion(a.Out)
			case "fish":
				return root.GenFishCompletion(a.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Out)
			}
			return badFlag("there is no completion for %q; choose bash, zsh, fish or powershell", args[0])
		},
	}
}
