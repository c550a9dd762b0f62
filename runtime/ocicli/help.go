package ocicli

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

// helpAsked is the error of a verb that was called with --help.
type helpAsked struct{ flags *flag.FlagSet }

func (h *helpAsked) Error() string { return "help was asked for" }

// short maps the flags of one letter to their names.
var short = map[string]string{"b": "bundle", "d": "detach", "p": "process", "u": "user", "e": "env", "c": "cap", "g": "additional-gids",
	"t": "tty", "a": "all", "q": "quiet", "r": "resources", "f": "format or force"}

// meaning says what flags do; a flag means the same with every verb that has it. In front of a tab: what its value is.
var meaning = map[string]string{
	"bundle":             "DIR\tthe bundle: config.json and the root file system (default: the current directory)",
	"console-socket":     "SOCKET\tunix socket that is sent the master of the container's terminal",
	"pidfd-socket":       "SOCKET\tunix socket that is sent a pidfd of the process",
	"pid-file":           "FILE\twrite the process id there",
	"preserve-fds":       "N\tgive the process N file descriptors more, from 3 on",
	"no-pivot":           "\tmove the root mount instead of pivot_root, for a root file system on a ramdisk",
	"no-new-keyring":     "\tlet the container have the caller's session keyring",
	"detach":             "\treturn when the process runs, do not wait for its end",
	"keep":               "\tdo not delete the container at its end",
	"no-subreaper":       "\tdo not adopt orphans of the container (they are in its pid namespace anyway)",
	"process":            "FILE\tread the process from this JSON file",
	"user":               "UID[:GID]\tuser and group to run as",
	"env":                "K=V\tset an environment variable",
	"cap":                "CAP\tgive a capability",
	"additional-gids":    "GID\ta further group",
	"tty":                "\tgive the process a terminal",
	"cwd":                "DIR\tworking directory in the container",
	"apparmor":           "PROFILE\tAppArmor profile",
	"process-label":      "LABEL\tSELinux label",
	"no-new-privs":       "\tno privileges from set-user-id programs",
	"ignore-paused":      "\tgo on if the container is paused",
	"cgroup":             "PATH\tnot supported: processes run in the container's own cgroup",
	"all":                "\tsignal every process of the container",
	"force":              "\tkill it first if it runs; no error if it does not exist",
	"format":             "table|json\thow to print (default table)",
	"quiet":              "\tprint ids only",
	"resources":          "FILE|-\tread limits as the specification's linux.resources JSON",
	"blkio-weight":       "N\tweight of block IO, 10 to 1000",
	"cpu-period":         "USEC\tperiod of the CPU quota",
	"cpu-quota":          "USEC\tCPU time per period",
	"cpu-burst":          "USEC\tCPU time that may be saved for later",
	"cpu-share":          "N\tweight of CPU time",
	"cpu-rt-period":      "USEC\tperiod of the realtime quota",
	"cpu-rt-runtime":     "USEC\trealtime CPU time per period",
	"cpu-idle":           "0|1\trun only when nobody else wants to",
	"cpuset-cpus":        "LIST\tCPUs to use",
	"cpuset-mems":        "LIST\tmemory nodes to use",
	"memory":             "BYTES\tlimit of memory (k, m, g, t may follow)",
	"memory-reservation": "BYTES\tmemory that is left when memory is short",
	"memory-swap":        "BYTES\tlimit of memory and swap together, -1 for none",
	"pids-limit":         "N\tlimit of processes and threads",
	"l3-cache-schema":    "SCHEMA\tnot supported: Intel RDT cache allocation",
	"mem-bw-schema":      "SCHEMA\tnot supported: Intel RDT memory bandwidth",
	"interval":           "DURATION\ttime between statistics (default 5s)",
	"stats":              "\tprint statistics once",
	"rootless":           "\tan example for a user without root",
}

// help prints a verb's usage and its flags.
func (c *command) help(v verb, f *flag.FlagSet) {
	fmt.Fprintf(c.out, "%s: %s\n\nusage: shoal-runtime %s %s\n", v.name, v.help, v.name, v.args)
	var lines []string
	f.VisitAll(func(fl *flag.Flag) {
		if len(fl.Name) == 1 {
			return
		}
		value, what, _ := strings.Cut(meaning[fl.Name], "\t")
		name := "--" + fl.Name
		for letter, long := range short {
			if slices.Contains(strings.Split(long, " or "), fl.Name) && f.Lookup(letter) != nil {
				name = "-" + letter + ", " + name
			}
		}
		lines = append(lines, fmt.Sprintf("  %-32s %s", name+" "+value, what))
	})
	if len(lines) > 0 {
		fmt.Fprintf(c.out, "\nflags:\n%s\n", strings.Join(lines, "\n"))
	}
}
