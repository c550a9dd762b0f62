package cli

import (
	"strings"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type completer = func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// Which containers a verb works on.
var (
	anyState = func(container.ContainerState) bool { return true }
	running  = func(s container.ContainerState) bool { return s == container.StateRunning }
	stopped  = func(s container.ContainerState) bool {
		return s != container.StateRunning && s != container.StatePaused
	}
)

func (a *App) completeContainers(want func(container.ContainerState) bool) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		api, err := a.API()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		res, err := api.ContainerList(cmd.Context(), moby.ContainerListOptions{All: true})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, c := range res.Items {
			if want(c.State) && len(c.Names) > 0 {
				out = append(out, strings.TrimPrefix(c.Names[0], "/"))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *App) completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "rm" && cmd.Name() != "rmi" && cmd.Name() != "save" && cmd.Name() != "inspect" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	api, err := a.API()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	res, err := api.ImageList(cmd.Context(), moby.ImageListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, i := range res.Items {
		out = append(out, i.RepoTags...)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *App) completeNetworks(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	api, err := a.API()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	res, err := api.NetworkList(cmd.Context(), moby.NetworkListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, n := range res.Items {
		out = append(out, n.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *App) completeVolumes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	api, err := a.API()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	res, err := api.VolumeList(cmd.Context(), moby.VolumeListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, v := range res.Items {
		out = append(out, v.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
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
				return root.GenBashCompletionV2(a.Out, true)
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
