package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

const needsCluster = "needs a cluster of nodes, which this version does not make; %s"

// absent are docker's verbs that are not here, each with the reason and what to do instead.
var absent = map[string]string{
	"checkpoint": "checkpoints of running containers are not offered; stop keeps a container's files, commit keeps them as an image",
	"config":     fmt.Sprintf(needsCluster, `give a container its files with "--mount type=bind" or a volume`),
	"node":       fmt.Sprintf(needsCluster, "this engine's own description is \"shoal info\""),
	"plugin":     "plug-ins that are installed as images are not offered; those that run as programs of the host are found in /run/docker/plugins",
	"secret":     fmt.Sprintf(needsCluster, `give a container a file with "--mount type=bind,readonly", and a build one with "build --secret"`),
	"service":    fmt.Sprintf(needsCluster, `"run -d --restart always" keeps a container running on this machine`),
	"stack":      fmt.Sprintf(needsCluster, `Compose files run on one machine by the plug-in "compose"`),
	"swarm":      fmt.Sprintf(needsCluster, `containers of one machine reach each other on a network of their own: "network create"`),
	"trust":      "Docker Content Trust (Notary v1) no longer exists; name an image by digest to be sure of its content",
}

// knownPlugins are those that people have in their fingers, with what to do when they are not there.
var knownPlugins = map[string]string{
	"buildx":  `"shoal build" builds without it`,
	"compose": "install it (docker-compose-plugin of Docker's packages, docker-compose-v2 of Ubuntu's): it works with this engine",
}

// elsewhere makes the command for a first word that is no verb of ours: one of docker's that is refused, a program that docker's
// command line would start for it (compose, buildx and so on), or a mistake. What follows the word is for others to read.
func (a *App) elsewhere(word string) *cobra.Command {
	return &cobra.Command{Use: word, DisableFlagParsing: true, Hidden: true, RunE: func(cmd *cobra.Command, _ []string) error {
		if why, ok := absent[word]; ok {
			return errs.New(errs.Unsupported, "shoal %s: %s", word, why)
		}
		if path := a.plugins()[word]; path != "" {
			return a.runPlugin(path)
		}
		if then, ok := knownPlugins[word]; ok {
			return errs.New(errs.NotFound, "shoal %s is a plug-in of docker's command line, which is not installed: there is no docker-%s in %s; %s", word, word, strings.Join(a.pluginDirs(), ", "), then)
		}
		return unknownCommand(cmd.Root(), word, verbs())
	}}
}

// plugins finds the programs by which docker's command line gets more verbs, in the directories where it looks for them; the
// first one of a name counts.
func (a *App) plugins() map[string]string {
	found := map[string]string{}
	for _, dir := range a.pluginDirs() {
		entries, _ := os.ReadDir(dir) // most of them do not exist
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), "docker-")
			if !ok || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || found[name] != "" {
				continue
			}
			path := filepath.Join(dir, e.Name())
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				found[name] = path
			}
		}
	}
	return found
}

func (a *App) pluginDirs() []string {
	dirs := append(slices.Clone(a.settings().PluginDirs), filepath.Join(a.configDir(), "cli-plugins"))
	for _, d := range []string{"/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"} {
		dirs = append(dirs, d+"/docker/cli-plugins")
	}
	return dirs
}

// runPlugin becomes the plug-in, which gets the whole command line, as from docker. It knows only docker's ways to choose the
// engine, so it is told when ours chose another.
func (a *App) runPlugin(path string) error {
	env := append(os.Environ(), "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND="+os.Args[0])
	o := a.global
	if o.Host == "" && (o.Context == "" || o.Context == "default") {
		ep, err := client.Resolve(o)
		if err != nil {
			return err
		}
		if ep.Context == "default" {
			env = append(env, "DOCKER_HOST="+ep.Host)
		}
	}
	return errs.Wrap(syscall.Exec(path, append([]string{path}, a.args...), env), "start the plug-in %s", path)
}

// completing says whether the arguments ask for the completion of a plug-in's line, which the plug-in does, and by which program.
func (a *App) completing() (path string, yes bool) {
	if len(a.args) < 3 || !strings.HasPrefix(a.args[0], "__complete") {
		return "", false
	}
	words := commandWords(a.args[1 : len(a.args)-1]) // the last one is being typed
	if len(words) == 0 {
		return "", false
	}
	path, yes = a.plugins()[words[0]]
	return path, yes
}

// dealias obeys the one alias that docker's command line permits: "builder" in config.json's aliases gives build and builder to a plug-in.
func (a *App) dealias() error {
	words := commandWords(a.args)
	if len(words) == 0 || words[0] != "build" && words[0] != "builder" {
		return nil
	}
	target := a.settings().Aliases["builder"]
	if target == "" {
		return nil
	}
	if a.plugins()[target] == "" {
		return errs.New(errs.NotFound, "config.json in %s gives \"builder\" to the plug-in %q, which is not installed; install it, or take the alias out", a.configDir(), target)
	}
	i := slices.Index(a.args, words[0])
	args := append(slices.Clone(a.args[:i]), target)
	if words[0] == "build" {
		args = append(args, "build")
	}
	a.args = append(args, a.args[i+1:]...)
	return nil
}
