package doctor

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/shoalhq/shoal/lib/plural"
	"github.com/shoalhq/shoal/observe/health"
)

// Severity says how bad a finding is.
type Severity = health.Severity

// The severities, worst first.
const (
	Error   = health.Error   // containers cannot run, or data is in danger
	Warning = health.Warning // something that users ask for will not work
	Info    = health.Info    // good to know when looking for a reason
)

var order = map[Severity]int{Error: 0, Warning: 1, Info: 2}

// Finding is one thing that is not as it should be.
type Finding struct {
	Code     string   `json:"code"` // stable; in observe/health
	Severity Severity `json:"severity"`
	Cause    string   `json:"cause"` // what was found, with the evidence
	Fix      string   `json:"fix"`
	Affects  []string `json:"affects"` // features that do not work, or work less
}

// Evaluate applies every rule. Pure: the same facts give the same findings in the same order, the worst first.
func Evaluate(f Facts) []Finding {
	var out []Finding
	for _, rule := range rules {
		out = append(out, rule(f)...)
	}
	sort.SliceStable(out, func(i, j int) bool { return order[out[i].Severity] < order[out[j].Severity] })
	return out
}

// Codes lists every code there is, for the documentation's test.
func Codes() []string { return slices.Clone(codes) }

var codes = []string{
	"kernel-too-old", "kernel-old", "not-root", "capability-missing", "resource-capability-missing", "open-files-low", "no-new-privs",
	"cgroup-none", "cgroup-read-only", "cgroup-controller-missing", "cgroup-v1", "cgroup-swap-missing",
	"data-root-read-only", "data-root-noexec", "data-root-nodev", "overlay-missing", "xattr-missing", "disk-full", "disk-low", "inodes-low", "record-damaged",
	"namespace-missing", "user-namespace-missing", "seccomp-missing", "seccomp-actions-missing", "no-mac", "apparmor-parser-missing", "emulator-not-fixed",
	"nftables-missing", "link-missing", "link-kind-missing", "ip-forward-off", "firewall-drops-forward", "legacy-iptables",
	"bridge-netfilter-missing", "no-resolver", "resolver-silent", "no-default-route", "conntrack-low", "pid-max-low", "inotify-low", "clock-wrong",
	"clock-unsynchronized", "memory-low", "network-repaired", "network-route-clash", "network-endpoint",
	"engine-exposed", "client-key-exposed", "api-open", "socket-not-served", "daemon-down", "leftover-bridge",
}

var rules = []func(Facts) []Finding{kernelRules, processRules, cgroupRules, storageRules, diskRules, namespaceRules, securityRules, emulatorRules,
	linkRules, firewallRules, sysctlRules, otherRules, repairRules, engineRules}

// repairRules tells what the daemon found while it ran. What was repaired works again; it is told since who changes it
// once does so again.
func repairRules(f Facts) (out []Finding) {
	if f.Engine == nil {
		return nil
	}
	for _, r := range f.Engine.Repairs {
		cause := fmt.Sprintf("%s %s (%s, last %s)", r.What, r.How, plural.Of(r.Times, "time"), r.Last.UTC().Format("2006-01-02 15:04:05 UTC"))
		switch r.Code {
		case "network-repaired":
			out = append(out, find(Warning, r.Code, cause+"; it is as it should be again", "find out what that program does, and keep it from links and rules that are not its own", "containers' connections, for a moment"))
		case "network-route-clash":
			out = append(out, find(Warning, r.Code, cause, "make the network again with another --subnet, or change the route", "connections of the network's containers"))
		default:
			out = append(out, find(Warning, r.Code, cause, "disconnect the container from the network and connect it again", "the container's connections"))
		}
	}
	return out
}

func find(s Severity, code, cause, fix string, affects ...string) Finding {
	return Finding{Code: code, Severity: s, Cause: cause, Fix: fix, Affects: affects}
}

func kernelRules(f Facts) []Finding {
	k := f.Kernel
	switch {
	case k.Major == 0:
		return nil
	case !k.AtLeast(5, 7):
		return []Finding{find(Error, "kernel-too-old", "the kernel is "+k.Release+"; the runtime needs 5.7 or newer (openat2, pidfd, clone "+
			"into a control group)", "install a newer kernel", "everything")}
	case !k.AtLeast(5, 19):
		return []Finding{find(Info, "kernel-old", "the kernel is "+k.Release+"; some features need a newer one: cgroup.kill and CPU bursts "+
			"5.14, mount attributes 5.12, id-mapped overlay mounts 5.19", "install kernel 5.19 or newer to have them",
			"id-mapped mounts", "CPU bursts")}
	}
	return nil
}

// what each capability is used for.
var capabilityUse = map[string]string{
	"CAP_SYS_ADMIN": "namespaces, mounts, control groups", "CAP_NET_ADMIN": "networks and published ports",
	"CAP_SETUID": "running as another user", "CAP_SETGID": "running as another group", "CAP_CHOWN": "owners of files in images",
	"CAP_DAC_OVERRIDE": "files of other users", "CAP_FOWNER": "modes of files in images", "CAP_MKNOD": "devices in containers",
	"CAP_SYS_CHROOT": "changing the root", "CAP_KILL": "stopping containers", "CAP_SETPCAP": "dropping capabilities",
	"CAP_SYS_PTRACE": "looking into containers", "CAP_NET_RAW": "ping in containers", "CAP_SETFCAP": "file capabilities in images",
}

func processRules(f Facts) []Finding {
	var out []Finding
	p := f.Process
	var missing []string
	for _, c := range p.MissingCaps {
		switch use, known := capabilityUse[c]; {
		case c == "CAP_SYS_RESOURCE":
			out = append(out, find(Warning, "resource-capability-missing", "CAP_SYS_RESOURCE is missing: the kernel refuses to raise "+
				"resource limits above this process's and to lower oom_score_adj", "give the daemon CAP_SYS_RESOURCE; without it "+
				"containers that ask for more get a clear error", "--ulimit above the daemon's own limits", "--oom-score-adj below the daemon's own"))
		case known:
			missing = append(missing, c+" ("+use+")")
		default:
			missing = append(missing, c)
		}
	}
	switch {
	case p.UID != 0:
		out = append(out, find(Error, "not-root", fmt.Sprintf("this runs as user %d", p.UID), "run as root; what needs root was not looked at", "everything"))
	case len(missing) > 0:
		out = append(out, find(Error, "capability-missing", "root lacks "+strings.Join(missing, ", "), "start the daemon with these "+
			"capabilities; inside another container start that one with them", "what is named in brackets"))
	}
	if p.FilesHard > 0 && p.FilesHard < 65536 {
		out = append(out, find(Info, "open-files-low", fmt.Sprintf("at most %d open files (RLIMIT_NOFILE); the default for containers comes "+
			"from it as well", p.FilesHard), "set LimitNOFILE=1048576 in the daemon's unit, or ulimit -Hn 1048576 before starting it",
			"more than some thousand containers", "programs that need many files"))
	}
	if f.Security.NoNewPrivs {
		out = append(out, find(Warning, "no-new-privs", "no_new_privs is set on this process and goes over to every container: set-uid "+
			"programs and file capabilities have no effect there", "start the daemon without NoNewPrivileges=", "su, sudo and ping in containers"))
	}
	return out
}

// controllers the engine uses, with what for; v2's names.
var controllerUse = []struct{ name, v1, use string }{
	{"memory", "memory", "--memory"}, {"pids", "pids", "--pids-limit"}, {"cpu", "cpu", "--cpus, --cpu-shares"},
	{"cpuset", "cpuset", "--cpuset-cpus"}, {"io", "blkio", "--device-read-bps and the like"}, {"hugetlb", "hugetlb", "huge page limits"},
	{"", "devices", "device rules"}, {"", "freezer", "pause"}, {"", "cpuacct", "CPU figures in stats"},
}

func cgroupRules(f Facts) []Finding {
	c := f.Cgroups
	if c.Mode == "" || c.Mode == "none" {
		return []Finding{find(Error, "cgroup-none", "no control groups are mounted", "mount them: mount -t cgroup2 none /sys/fs/cgroup", "everything")}
	}
	var out []Finding
	if c.Writable.Tried && !c.Writable.OK {
		out = append(out, find(Error, "cgroup-read-only", "a control group cannot be made: "+c.Writable.Error, "mount /sys/fs/cgroup "+
			"writable; inside another container give that one a writable cgroup mount (--privileged or --cgroupns=private)", "everything"))
	}
	for _, u := range controllerUse {
		name := u.v1
		if c.Mode == "v2" {
			name = u.name
		}
		if name == "" || c.Controllers[name] {
			continue
		}
		s := Warning
		if name == "hugetlb" || name == "blkio" || name == "io" {
			s = Info
		}
		out = append(out, find(s, "cgroup-controller-missing", "the "+name+" controller is not there on this "+c.Mode+" host",
			"enable it: cgroup_enable="+name+" on the kernel's command line, or mount it", u.use))
	}
	if c.Mode != "v2" {
		out = append(out, find(Info, "cgroup-v1", "control groups are "+c.Mode+": limits are in the old hierarchies", "boot with "+
			"systemd.unified_cgroup_hierarchy=1 or mount only cgroup2; everything works as it is", "unified resources"))
	}
	if c.Controllers["memory"] && !c.SwapLimit {
		out = append(out, find(Warning, "cgroup-swap-missing", "the kernel does not account swap for control groups", "boot with swapaccount=1",
			"--memory-swap"))
	}
	return out
}

func storageRules(f Facts) []Finding {
	var out []Finding
	s := f.Storage
	where := fmt.Sprintf("the data root %s (%s)", s.DataRoot, s.FileSystem)
	if s.ReadOnly {
		return []Finding{find(Error, "data-root-read-only", where+" is mounted read-only", "mount it writable or choose another one with --data-root", "everything")}
	}
	if s.NoExec {
		out = append(out, find(Error, "data-root-noexec", where+" is mounted with noexec: no program of an image can be started",
			"mount it without noexec or choose another one with --data-root", "every container"))
	}
	if s.NoSUID || s.NoDev {
		out = append(out, find(Warning, "data-root-nodev", where+" is mounted with nosuid or nodev, which containers inherit",
			"mount it without them", "set-uid programs and device nodes in images"))
	}
	if s.Overlay.Tried && !s.Overlay.OK {
		out = append(out, find(Error, "overlay-missing", "an overlay cannot be mounted on "+where+": "+s.Overlay.Error, "load the overlay "+
			"module, or put the data root on ext4, xfs (made with ftype=1) or btrfs: an overlay's upper directory cannot be on another "+
			"overlay or on NFS", "images with more than one layer without copies"))
	}
	if s.Xattr.Tried && !s.Xattr.OK {
		out = append(out, find(Warning, "xattr-missing", "trusted attributes cannot be kept on "+where+": "+s.Xattr.Error,
			"put the data root on a file system with extended attributes", "file capabilities in images", "deleting directories of lower layers"))
	}
	return out
}

func diskRules(f Facts) []Finding {
	var out []Finding
	s := f.Storage
	const gib = 1 << 30
	size := func(n uint64) string {
		if n < gib {
			return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
		}
		return fmt.Sprintf("%.1f GiB", float64(n)/gib)
	}
	free := fmt.Sprintf("%s of %s are free at %s", size(s.Free), size(s.Total), s.DataRoot)
	tidy := "remove what is not used: shoal system prune; see shoal system df"
	switch {
	case s.Total == 0:
	case s.Free < 256<<20:
		out = append(out, find(Error, "disk-full", free, tidy, "pulling, building, writing in containers"))
	case s.Free < 2*gib || s.Free < s.Total/20 && s.Free < 20*gib:
		out = append(out, find(Warning, "disk-low", free, tidy, "pulling and building"))
	}
	if s.Files > 0 && s.FilesFree < s.Files/20 {
		out = append(out, find(Warning, "inodes-low", fmt.Sprintf("%d of %d inodes are free at %s: \"no space left\" comes before the disk is full",
			s.FilesFree, s.Files, s.DataRoot), tidy+", or use xfs or btrfs, which make inodes as needed", "pulling and building"))
	}
	if len(s.Damaged) > 0 {
		out = append(out, find(Warning, "record-damaged", "the daemon could not read and set aside: "+strings.Join(s.Damaged, ", "),
			"mend the file from a backup and move it back while the daemon is stopped, or remove it; its log of that time says what was wrong", "what these records are about"))
	}
	return out
}

var namespaceUse = map[string]string{"mount": "every container", "pid": "every container", "network": "every container but --network host",
	"ipc": "every container", "uts": "every container", "cgroup": "--cgroupns=private", "time": "time offsets"}

func namespaceRules(f Facts) []Finding {
	var out []Finding
	names := make([]string, 0, len(f.Namespaces))
	for n := range f.Namespaces {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		p := f.Namespaces[n]
		if !p.Tried || p.OK {
			continue
		}
		if n == "user" {
			fix := "enable CONFIG_USER_NS"
			if v, ok := f.Sysctls["user.max_user_namespaces"]; ok && v == 0 {
				fix = "sysctl -w user.max_user_namespaces=15000"
			}
			out = append(out, find(Warning, "user-namespace-missing", "a user namespace cannot be made: "+p.Error, fix, "--userns-remap", "rootless containers"))
			continue
		}
		s := Error
		if n == "time" || n == "cgroup" {
			s = Info
		}
		out = append(out, find(s, "namespace-missing", "a "+n+" namespace cannot be made: "+p.Error, "use a kernel with it; look at "+
			"user.max_*_namespaces", namespaceUse[n]))
	}
	return out
}

func securityRules(f Facts) []Finding {
	var out []Finding
	s := f.Security
	if s.Seccomp.Tried && !s.Seccomp.OK {
		out = append(out, find(Error, "seccomp-missing", "system call filters cannot be used: "+s.Seccomp.Error, "use a kernel with "+
			"CONFIG_SECCOMP_FILTER, or run with --security-opt seccomp=unconfined if you trust every image", "the default security profile"))
	} else if s.Seccomp.OK {
		var lacking []string
		for _, a := range []string{"kill_process", "log", "user_notif"} {
			if !slices.Contains(s.SeccompActions, a) {
				lacking = append(lacking, a)
			}
		}
		if len(lacking) > 0 {
			out = append(out, find(Info, "seccomp-actions-missing", "the kernel's filters lack "+strings.Join(lacking, ", "),
				"use kernel 5.0 or newer", "custom seccomp profiles with these actions"))
		}
	}
	if !s.AppArmor && !s.SELinux {
		out = append(out, find(Info, "no-mac", "neither AppArmor nor SELinux is active; containers are confined by namespaces, capabilities, "+
			"seccomp and masked paths", "enable one of them (lsm= on the kernel's command line) for a further barrier", "--security-opt apparmor= and label="))
	}
	if s.AppArmor && !s.AppArmorParser {
		out = append(out, find(Warning, "apparmor-parser-missing", "AppArmor is active, but the program apparmor_parser, which loads profiles, is not there: "+
			"containers run without a profile", "install the package apparmor and start the daemon again", "the default AppArmor profile"))
	}
	return out
}

// emulatorRules names handlers that find nothing in containers.
func emulatorRules(f Facts) (out []Finding) {
	for _, e := range f.Emulators {
		if !e.Fixed {
			out = append(out, find(Info, "emulator-not-fixed", "the handler "+e.Name+" is registered without the flag F: the kernel looks for "+e.Program+" in the container's own files",
				"register it with the flag F, as Debian's packages qemu-user-static and binfmt-support do", "images of another platform that run by emulation"))
		}
	}
	return out
}

var linkUse = map[string]string{"bridge": "the default network", "veth": "every network but host and none", "macvlan": "macvlan networks",
	"ipvlan": "ipvlan networks", "vxlan": "overlay networks", "wireguard": "encrypted overlay networks", "dummy": "internal macvlan networks"}

func linkRules(f Facts) []Finding {
	var out []Finding
	n := f.Network
	if n.NFTables.Tried && !n.NFTables.OK {
		out = append(out, find(Error, "nftables-missing", "nftables does not answer: "+n.NFTables.Error, "load nf_tables "+
			"(modprobe nf_tables nft_chain_nat) or use a kernel with CONFIG_NF_TABLES", "published ports", "containers reaching the outside"))
	}
	kinds := make([]string, 0, len(n.Links))
	for k := range n.Links {
		kinds = append(kinds, k)
	}
	sort.Strings(kinds)
	for _, k := range kinds {
		p := n.Links[k]
		switch {
		case !p.Tried || p.OK:
		case k == "bridge" || k == "veth":
			out = append(out, find(Error, "link-missing", "links of kind "+k+" cannot be made: "+p.Error, "modprobe "+k, linkUse[k]))
		default:
			out = append(out, find(Info, "link-kind-missing", "links of kind "+k+" cannot be made: "+p.Error, "modprobe "+k+", or use a kernel with it", linkUse[k]))
		}
	}
	if len(n.Resolvers) == 0 {
		out = append(out, find(Warning, "no-resolver", "/etc/resolv.conf names no name server", "add one, or start the daemon with --dns",
			"resolving outside names in containers", "pulling images"))
	}
	if len(n.Silent) > 0 {
		cause, affects := "the name server "+strings.Join(n.Silent, ", ")+" does not answer", "slow look-ups of names in containers, where it is asked before another"
		if len(n.Silent) == len(n.Resolvers) {
			cause, affects = "no name server answers: "+strings.Join(n.Silent, ", "), "resolving outside names in containers, pulling images"
		}
		out = append(out, find(Warning, "resolver-silent", cause, "mend /etc/resolv.conf, the way to that server or its firewall, or start the daemon with --dns", affects))
	}
	if !n.DefaultIPv4 {
		out = append(out, find(Info, "no-default-route", "there is no IPv4 default route", "connect the host if containers shall reach the outside",
			"pulling images", "containers reaching the outside"))
	}
	return out
}

func firewallRules(f Facts) []Finding {
	var out []Finding
	for _, c := range f.Network.Chains {
		if c.Hook != "forward" || !c.Drops && !c.Ends {
			continue
		}
		how := "by the policy of its chain "
		if !c.Drops {
			how = "by the last rule of its chain "
		}
		who := "table " + c.Family + " " + c.Table
		fix := "allow what the containers' bridges send and get in that firewall, for example: nft insert rule " + c.Family + " " + c.Table + " " + c.Name +
			" iifname \"shoal0\" accept, the same with oifname, and both for each br-* bridge of your networks"
		switch {
		case c.Table == "firewalld":
			who = "firewalld (" + who + ")"
			fix = "give the containers' bridges to a zone that accepts: firewall-cmd --permanent --zone=trusted --add-interface=shoal0, the same for each br-* bridge of your networks, and firewall-cmd --reload"
		case c.Table == "filter" && c.Name == "FORWARD":
			who = "iptables, as used by Docker, ufw and others (" + who + ")"
		}
		out = append(out, find(Warning, "firewall-drops-forward", who+" drops forwarded packets "+how+c.Name+
			"; another table's accept does not overrule that", fix, "published ports", "containers reaching the outside"))
	}
	if legacy := append(slices.Clone(f.Network.LegacyIPv4), f.Network.LegacyIPv6...); len(legacy) > 0 {
		slices.Sort(legacy)
		out = append(out, find(Info, "legacy-iptables", "tables of the old iptables are loaded ("+strings.Join(slices.Compact(legacy), ", ")+
			"): their rules count as well and nft does not show them", "look with iptables-legacy-save; move to iptables-nft or nftables",
			"finding out why packets are dropped"))
	}
	return out
}

func sysctlRules(f Facts) []Finding {
	var out []Finding
	is := func(name string, bad func(int64) bool) (int64, bool) {
		v, ok := f.Sysctls[name]
		return v, ok && bad(v)
	}
	zero := func(v int64) bool { return v == 0 }
	below := func(n int64) func(int64) bool { return func(v int64) bool { return v < n } }
	if _, bad := is("net.ipv4.ip_forward", zero); bad {
		out = append(out, find(Info, "ip-forward-off", "net.ipv4.ip_forward is 0", "nothing: the daemon turns it on with the first bridge "+
			"network, unless it runs with --ip-forward=false", "containers reaching the outside"))
	}
	if _, bad := is("net.bridge.bridge-nf-call-iptables", zero); bad {
		out = append(out, find(Info, "bridge-netfilter-missing", "net.bridge.bridge-nf-call-iptables is 0: packets between containers on one "+
			"bridge are not seen by the IP firewall", "sysctl -w net.bridge.bridge-nf-call-iptables=1 if your own rules shall see them",
			"your own firewall rules between containers of one network"))
	}
	if v, bad := is("net.netfilter.nf_conntrack_max", below(65536)); bad {
		out = append(out, find(Info, "conntrack-low", fmt.Sprintf("the kernel tracks at most %d connections", v), "sysctl -w net.netfilter.nf_conntrack_max=262144",
			"many connections through published ports"))
	}
	if v, bad := is("kernel.pid_max", below(65536)); bad {
		out = append(out, find(Info, "pid-max-low", fmt.Sprintf("the host can have at most %d processes and threads", v), "sysctl -w kernel.pid_max=4194304",
			"hundreds of containers with many threads"))
	}
	if v, bad := is("fs.inotify.max_user_instances", below(512)); bad {
		out = append(out, find(Info, "inotify-low", fmt.Sprintf("each user can have at most %d inotify watchers, all containers of root together", v),
			"sysctl -w fs.inotify.max_user_instances=8192", "programs in containers that watch files"))
	}
	return out
}

// built is before this program can have been made: a clock that shows less is wrong.
const built = 1_750_000_000

func otherRules(f Facts) []Finding {
	var out []Finding
	switch {
	case f.Clock.Unix != 0 && f.Clock.Unix < built:
		out = append(out, find(Error, "clock-wrong", fmt.Sprintf("the clock shows second %d since 1970, before this program was made", f.Clock.Unix),
			"set the clock and start a time service", "certificates: pulling images, clusters", "schedules and logs"))
	case f.Clock.Unix != 0 && !f.Clock.Synchronized:
		out = append(out, find(Info, "clock-unsynchronized", "the kernel says that its clock is not synchronized", "run chrony, ntpd or systemd-timesyncd",
			"clusters", "comparing logs of several hosts"))
	}
	if f.MemoryBytes > 0 && f.MemoryBytes < 512<<20 {
		out = append(out, find(Warning, "memory-low", fmt.Sprintf("the host has %d MiB of memory", f.MemoryBytes>>20), "give it 1 GiB or more",
			"building images", "more than a few containers"))
	}
	return out
}
