package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespaces tries to make one of each kind: a process is cloned into it whose program does not exist. When the clone
// works the error is about the program.
func namespaces() map[string]Probe {
	out := map[string]Probe{}
	for name, flag := range map[string]uintptr{"mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "network": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC,
		"uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP, "user": unix.CLONE_NEWUSER} {
		_, err := syscall.ForkExec("/proc/self/no-such-program", nil, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: flag}})
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		out[name] = probed(err)
	}
	_, err := os.Stat("/proc/self/ns/time_for_children")
	out["time"] = probed(err)
	return out
}

// probeInPrivate tries links on a thread in a network namespace of its own, which ends with the thread; and looks at
// the host's firewall from outside of it.
func probeInPrivate(f *Facts) {
	f.Network.NFTables, f.Network.Chains = firewall()
	f.Process.OOMScoreDown = oomScore()
	done := make(chan map[string]Probe)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and the namespace with the thread.
		runtime.LockOSThread()
		out := map[string]Probe{}
		defer func() { done <- out }()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		probeLinks(out)
	}()
	f.Network.Links = <-done
}

func probeLinks(out map[string]Probe) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return
	}
	defer h.Close()
	attrs := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	try := func(kind string, l netlink.Link) { out[kind] = probed(h.LinkAdd(l)) }
	try("bridge", &netlink.Bridge{LinkAttrs: attrs("b0")})
	try("veth", &netlink.Veth{LinkAttrs: attrs("v0"), PeerName: "v1"})
	parent := attrs("x0")
	if p, err := h.LinkByName("v0"); err == nil {
		parent.ParentIndex = p.Attrs().Index
	}
	try("dummy", &netlink.Dummy{LinkAttrs: attrs("d0")})
	parent.Name = "m0"
	try("macvlan", &netlink.Macvlan{LinkAttrs: parent, Mode: netlink.MACVLAN_MODE_BRIDGE})
	// On another parent: one link cannot carry both kinds.
	if p, err := h.LinkByName("v1"); err == nil {
		parent.ParentIndex = p.Attrs().Index
	}
	parent.Name = "i0"
	try("ipvlan", &netlink.IPVlan{LinkAttrs: parent, Mode: netlink.IPVLAN_MODE_L2})
	try("vxlan", &netlink.Vxlan{LinkAttrs: attrs("o0"), VxlanId: 1, Port: 4789})
	try("wireguard", &netlink.Wireguard{LinkAttrs: attrs("w0")})
}

var hooks = map[uint32]string{0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}

// Chains lists what firewall lists; nothing when it cannot be read.
func Chains() []Chain {
	_, chains := firewall()
	return chains
}

// firewall lists other programs' base chains in the paths of containers' packets.
func firewall() (Probe, []Chain) {
	c, err := nftables.New()
	if err != nil {
		return probed(err), nil
	}
	chains, err := c.ListChains()
	if err != nil {
		return probed(err), nil
	}
	var out []Chain
	for _, ch := range chains {
		if ch.Hooknum == nil || ch.Table == nil || strings.HasPrefix(ch.Table.Name, "shoal") {
			continue
		}
		family := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
			nftables.TableFamilyBridge: "bridge"}[ch.Table.Family]
		hook := hooks[uint32(*ch.Hooknum)]
		if family == "" || hook == "" {
			continue
		}
		out = append(out, Chain{Family: family, Table: ch.Table.Name, Name: ch.Name, Hook: hook,
			Drops: ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop, Ends: hook == "forward" && endsInDrop(c, ch)})
	}
	return probed(nil), out
}

// oomScore tries to lower this process's own score by one and puts it back.
func oomScore() Probe {
	const file = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(file)
	if err != nil {
		return Probe{}
	}
	var now int
	if _, err := fmt.Sscan(string(b), &now); err != nil || now <= -1000 {
		return Probe{}
	}
	err = os.WriteFile(file, fmt.Append(nil, now-1), 0)
	if err == nil {
		_ = os.WriteFile(file, b, 0)
	}
	return probed(err)
}

// probeOverlay mounts an overlay with its directories in dir on a thread with a mount namespace of its own, and keeps a
// trusted attribute there. The directories are removed.
func probeOverlay(dir string) (overlay, xattr Probe) {
	tmp, err := os.MkdirTemp(dir, ".shoal-doctor-")
	if err != nil {
		return probed(err), Probe{}
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return probed(err), Probe{}
		}
	}
	xattr = probed(unix.Setxattr(filepath.Join(tmp, "lower"), "trusted.overlay.opaque", []byte("y"), 0))
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the mount goes with the thread
		done <- mountOverlay(tmp)
	}()
	return probed(<-done), xattr
}

func mountOverlay(tmp string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Relative names: a comma or colon in the data root's path would end an option. The thread has a working directory
	// of its own since it has a mount namespace of its own (which takes CLONE_FS apart).
	if err := unix.Chdir(tmp); err != nil {
		return err
	}
	merged := "merged"
	if err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work"); err != nil {
		return err
	}
	return unix.Unmount(merged, unix.MNT_DETACH)
}
