package ocispec

import (
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Security is --security-opt, read.
type Security struct {
	NoNewPrivileges *bool
	Seccomp         string // "", unconfined, builtin, or a profile in JSON
	AppArmor        string
	Labels          []string // label=..., without "label="
	SystemPaths     string   // "" or unconfined
	WritableCgroups *bool
}

// NoNewPrivs says whether the program may gain privileges.
func (s Security) NoNewPrivs(daemonDefault bool) bool {
	if s.NoNewPrivileges != nil {
		return *s.NoNewPrivileges
	}
	return daemonDefault
}

// ParseSecurity reads the options as the Docker Engine does, "name=value" or the older "name:value".
func ParseSecurity(options []string) (Security, error) {
	var s Security
	for _, opt := range options {
		name, value, has := strings.Cut(opt, "=")
		if !has {
			name, value, has = strings.Cut(opt, ":")
		}
		if err := s.set(name, value, has, opt); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *Security) set(name, value string, has bool, opt string) error {
	switch name {
	case "no-new-privileges", "writable-cgroups":
		on, err := parseBool(value, has)
		if err != nil {
			return errs.New(errs.Invalid, "invalid --security-opt %q: %q is neither true nor false", opt, value)
		}
		if name == "no-new-privileges" {
			s.NoNewPrivileges = &on
		} else {
			s.WritableCgroups = &on
		}
	case "disable":
		s.Labels = append(s.Labels, "disable")
	case "label":
		s.Labels = append(s.Labels, value)
	case "apparmor":
		s.AppArmor = value
	case "seccomp":
		s.Seccomp = value
	case "systempaths":
		if value != "unconfined" {
			return errs.New(errs.Invalid, "invalid --security-opt %q: systempaths can only be unconfined", opt)
		}
		s.SystemPaths = value
	default:
		return errs.New(errs.Invalid, "invalid --security-opt %q: known are apparmor, label, no-new-privileges, seccomp, systempaths and writable-cgroups", opt)
	}
	if !has && name != "no-new-privileges" && name != "writable-cgroups" && name != "disable" {
		return errs.New(errs.Invalid, "invalid --security-opt %q: want %s=VALUE", opt, name)
	}
	return nil
}

func parseBool(value string, has bool) (bool, error) {
	switch {
	case !has, value == "true", value == "1":
		return true, nil
	case value == "false", value == "0":
		return false, nil
	}
	return false, errs.New(errs.Invalid, "%q is neither true nor false", value)
}

// AppArmor chooses the profile, "" where the host has no AppArmor.
func AppArmor(privileged bool, sec Security, h Host) string {
	switch {
	case !h.AppArmor:
		return ""
	case sec.AppArmor != "":
		return sec.AppArmor
	case privileged:
		return "unconfined"
	}
	return h.Profile
}

// capabilityNames is in the kernel's order (include/uapi/linux/capability.h).
var capabilityNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCapabilities are the Docker Engine's.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// AllCapabilities are those that the kernel knows and the daemon can give.
func AllCapabilities(h Host) []string {
	var out []string
	for i, name := range capabilityNames {
		if i <= h.LastCap && (h.Caps == 0 || h.Caps&(1<<i) != 0) {
			out = append(out, name)
		}
	}
	return out
}

// NormalizeCapabilities gives names their kernel form: upper case, with CAP_; ALL stays.
func NormalizeCapabilities(names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, n := range names {
		name := strings.ToUpper(n)
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if name == "CAP_ALL" {
			name = "ALL"
		}
		if name != "ALL" && !slices.Contains(capabilityNames, name) {
			return nil, errs.New(errs.Invalid, "invalid capability %q: no kernel knows it; names are such as NET_ADMIN, see capabilities(7)", n)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// Capabilities are what the container's processes may have.
func Capabilities(sec model.SecuritySpec, h Host) ([]string, error) {
	add, err := NormalizeCapabilities(sec.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := NormalizeCapabilities(sec.CapDrop)
	if err != nil {
		return nil, err
	}
	known := AllCapabilities(h)
	for _, c := range add {
		if c != "ALL" && !slices.Contains(known, c) {
			return nil, errs.New(errs.Unsupported, "capability %s is not known to this kernel, or the daemon has not got it itself; leave it out of --cap-add", c)
		}
	}
	without := func(list, minus []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(c string) bool { return slices.Contains(minus, c) })
	}
	switch {
	case sec.Privileged:
		return known, nil
	case slices.Contains(add, "ALL"):
		return without(known, drop), nil
	case slices.Contains(drop, "ALL"):
		return add, nil
	}
	out := without(defaultCapabilities, drop)
	out = slices.DeleteFunc(out, func(c string) bool { return !slices.Contains(known, c) })
	for _, c := range add {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out, nil
}

// maskedPaths and readonlyPaths are the Docker Engine's.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// HiddenPaths are the paths that a container cannot see or not write, which it gives none of when it is privileged.
func HiddenPaths(spec model.SecuritySpec, sec Security, thermal []string) (masked, readonly []string) {
	if spec.Privileged || sec.SystemPaths == "unconfined" {
		return []string{}, []string{}
	}
	masked, readonly = append(slices.Clone(maskedPaths), thermal...), slices.Clone(readonlyPaths)
	if spec.MaskedPaths != nil {
		masked = *spec.MaskedPaths
	}
	if spec.ReadonlyPaths != nil {
		readonly = *spec.ReadonlyPaths
	}
	return masked, readonly
}
