package runflags

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

type security struct {
	capAdd     opts.ListOpts
	capDrop    opts.ListOpts
	privileged bool
	options    opts.ListOpts
	readOnly   bool
	groupAdd   opts.ListOpts
	sysctls    *opts.MapOpts
	ulimits    *opts.UlimitOpt
}

func (s *security) add(fs *pflag.FlagSet) {
	s.capAdd, s.capDrop = opts.NewListOpts(nil), opts.NewListOpts(nil)
	s.options, s.groupAdd = opts.NewListOpts(nil), opts.NewListOpts(nil)
	s.sysctls = opts.NewMapOpts(nil, opts.ValidateSysctl)
	s.ulimits = opts.NewUlimitOpt(nil)
	fs.Var(&s.capAdd, "cap-add", "Add Linux capabilities")
	fs.Var(&s.capDrop, "cap-drop", "Drop Linux capabilities")
	fs.BoolVar(&s.privileged, "privileged", false, "Give extended privileges to this container")
	fs.Var(&s.options, "security-opt", "Security Options")
	fs.BoolVar(&s.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.Var(&s.groupAdd, "group-add", "Add additional groups to join")
	fs.Var(s.sysctls, "sysctl", "Sysctl options")
	fs.Var(s.ulimits, "ulimit", "Ulimit options")
}

func (s *security) apply(_ *pflag.FlagSet, r *Request) error {
	h := r.HostConfig
	h.CapAdd, h.CapDrop, h.GroupAdd = s.capAdd.GetSlice(), s.capDrop.GetSlice(), s.groupAdd.GetSlice()
	h.Privileged, h.ReadonlyRootfs = s.privileged, s.readOnly
	h.Sysctls, h.Ulimits = s.sysctls.GetAll(), s.ulimits.GetList()
	for _, o := range s.options.GetSlice() {
		if o == "systempaths=unconfined" {
			// Empty, as opposed to nil, is the API's sign for "mask nothing".
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		o, err := securityOption(o)
		if err != nil {
			return err
		}
		h.SecurityOpt = append(h.SecurityOpt, o)
	}
	return nil
}

// securityOption checks one --security-opt, in the form key=value or, from old times, key:value; a seccomp profile is
// read here and sent along, because the engine may run elsewhere.
func securityOption(o string) (string, error) {
	key, val, ok := strings.Cut(o, "=")
	if !ok && key != "no-new-privileges" {
		key, val, ok = strings.Cut(o, ":")
	}
	if (!ok || val == "") && key != "no-new-privileges" {
		return "", invalid("invalid --security-opt: %q; use key=value, for example seccomp=profile.json, label=disable or no-new-privileges", o)
	}
	if key != "seccomp" || val == "unconfined" || val == "builtin" {
		return o, nil
	}
	data, err := os.ReadFile(val)
	if err != nil {
		return "", invalid("opening seccomp profile (%s) failed: %w", val, err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return "", invalid("compacting json for seccomp profile (%s) failed: %w", val, err)
	}
	return "seccomp=" + b.String(), nil
}

// spaces are the namespaces to share and what runs the container.
type spaces struct {
	userns       string
	cgroupns     string
	ipc          string
	pid          string
	uts          string
	cgroupParent string
	runtime      string
	isolation    string
}

func (s *spaces) add(fs *pflag.FlagSet) {
	fs.StringVar(&s.userns, "userns", "", "User namespace to use")
	fs.StringVar(&s.cgroupns, "cgroupns", "", `Cgroup namespace to use (host|private)
'host':    Run the container in the Docker host's cgroup namespace
'private': Run the container in its own private cgroup namespace
'':        Use the cgroup namespace as configured by the
           default-cgroupns-mode option on the daemon (default)`)
	fs.StringVar(&s.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&s.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&s.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&s.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringVar(&s.runtime, "runtime", "", "Runtime to use for this container")
	fs.StringVar(&s.isolation, "isolation", "", "Container isolation technology")
}

func (s *spaces) apply(_ *pflag.FlagSet, r *Request) error {
	h := r.HostConfig
	h.UsernsMode, h.CgroupnsMode = container.UsernsMode(s.userns), container.CgroupnsMode(s.cgroupns)
	h.IpcMode, h.PidMode, h.UTSMode = container.IpcMode(s.ipc), container.PidMode(s.pid), container.UTSMode(s.uts)
	h.CgroupParent, h.Runtime, h.Isolation = s.cgroupParent, s.runtime, container.Isolation(s.isolation)
	switch {
	case !h.PidMode.Valid():
		return invalid("--pid: invalid PID mode %q: use host or container:NAME", s.pid)
	case !h.UTSMode.Valid():
		return invalid("--uts: invalid UTS mode %q: use host", s.uts)
	case !h.UsernsMode.Valid():
		return invalid("--userns: invalid USER mode %q: use host", s.userns)
	case !h.CgroupnsMode.Valid():
		return invalid("--cgroupns: invalid CGROUP mode %q: use host or private", s.cgroupns)
	}
	return nil
}
