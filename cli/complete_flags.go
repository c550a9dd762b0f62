package cli

import (
	"context"
	"os"
	"slices"
	"strings"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagNames are flags whose values are names of things. A flag that means something else with some verb is not of the listed type there.
var flagNames = map[string]names{
	"context": contextNames, "network": networkNames, "net": networkNames, "volumes-from": containerNames, "link": linkNames,
	"runtime": runtimeNames,
}

// flagWords are flags whose values are words.
var flagWords = map[string][]string{
	"restart":   {"no", "always", "on-failure", "unless-stopped"},
	"pull":      {"always", "missing", "never"},
	"log-level": {"debug", "info", "warn", "error", "fatal"},
	"progress":  {"auto", "plain", "tty", "rawjson", "quiet"},
	"platform":  {"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x"},

	"cgroupns": {"host", "private"}, "userns": {"host"}, "uts": {"host"}, "pid": {"host", "container:"},
	"ipc":          {"private", "shareable", "host", "none", "container:"},
	"log-driver":   {"local", "json-file", "none", "syslog", "journald", "fluentd", "gelf"},
	"security-opt": {"apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined"},
	"driver":       {"bridge", "macvlan", "ipvlan", "null", "host"},
	"ulimit": {"as=", "core=", "cpu=", "data=", "fsize=", "locks=", "memlock=", "msgqueue=", "nice=", "nofile=", "nproc=", "rss=", "rtprio=",
		"rttime=", "sigpending=", "stack="},
	"signal": signalNames, "stop-signal": signalNames, "cap-add": capabilityNames, "cap-drop": capabilityNames,
	"format": {"json", "table"},
}

var signalNames = []string{"TERM", "INT", "HUP", "QUIT", "KILL", "USR1", "USR2", "STOP", "CONT", "ABRT", "ALRM", "WINCH", "RTMIN", "RTMIN+3"}

// capabilityNames are the kernel's, as --cap-add takes them.
var capabilityNames = strings.Fields(`ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
	DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
	NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE
	SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)

// filterKeys are the keys of --filter, by the noun that is listed.
var filterKeys = map[string]string{
	"ps":      "ancestor= before= exited= expose= health= id= is-task= label= name= network= publish= since= status= volume=",
	"images":  "before= dangling= label= reference= since= until=",
	"network": "dangling= driver= id= label= name= scope= type=",
	"volume":  "dangling= driver= label= name=",
	"events":  "container= daemon= event= image= label= network= scope= type= volume=",
	"prune":   "label= label!= until=",
}

// completeFlags gives the flags of cmd their completions; those without one complete file names, as shells do by themselves.
func (a *App) completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "bool" {
			return
		}
		do := func(c completer) { _ = cmd.RegisterFlagCompletionFunc(f.Name, c) }
		switch list, words := flagNames[f.Name], flagWords[f.Name]; {
		case f.Name == "driver" && !strings.HasPrefix(cmd.CommandPath(), "network"):
			do(fixed([]string{"local"}))
		case list != nil:
			do(func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
				return a.listNames(c, list, nil)
			})
		case words != nil:
			do(fixed(words))
		case f.Name == "filter":
			do(fixed(strings.Fields(filterKeys[filterOf(cmd)])))
		case f.Name == "env":
			do(variables)
		case !strings.Contains(f.Name, "file") && !strings.HasPrefix(f.Name, "tls") && !slices.Contains(
			[]string{"config", "output", "input", "from", "volume", "mount", "device", "build-context", "secret", "ssh", "cache-from", "cache-to", "ca", "cert", "key"}, f.Name):
			do(fixed(nil)) // a number, a new name, text
		}
	})
}

// filterOf is the key into filterKeys for a verb.
func filterOf(cmd *cobra.Command) string {
	switch path := cmd.CommandPath(); {
	case cmd.Name() == "prune":
		return "prune"
	case cmd.Name() == "ps", path == "container ls":
		return "ps"
	case cmd.Name() == "images", path == "image ls":
		return "images"
	case cmd.Name() == "events":
		return "events"
	default:
		noun, _, _ := strings.Cut(path, " ")
		return noun
	}
}

// fixed completes one of some words. After "=" or ":" the shell goes on at the same place.
func fixed(words []string) completer {
	return func(_ *cobra.Command, _ []string, to string) ([]string, cobra.ShellCompDirective) {
		d := cobra.ShellCompDirectiveNoFileComp
		var out []string
		for _, w := range words {
			if strings.HasPrefix(strings.ToLower(w), strings.ToLower(to)) {
				out = append(out, w)
			}
		}
		if len(out) > 0 && strings.ContainsAny(out[0][len(out[0])-1:], "=:") {
			d |= cobra.ShellCompDirectiveNoSpace
		}
		return out, d
	}
}

// variables completes names of the environment.
func variables(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		out = append(out, name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func linkNames(a *App, ctx context.Context, verb string) ([]string, error) {
	found, err := containerNames(a, ctx, verb)
	for i := range found {
		found[i] += ":"
	}
	return found, err
}

func runtimeNames(a *App, ctx context.Context, _ string) ([]string, error) {
	api, err := a.API()
	if err != nil {
		return nil, err
	}
	info, err := api.Info(ctx, moby.InfoOptions{})
	var out []string
	for name := range info.Info.Runtimes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, err
}
