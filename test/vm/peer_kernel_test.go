//go:build kernel

package vm

import (
	"os"
	"path/filepath"
	"testing"
)

// peerPackages are what the machine next to the guest's serves by, and the tools of AppArmor for the guest itself.
const peerPackages = "nfs-kernel-server,samba,samba-common-bin,iproute2,apparmor"

// addPeer puts a small Debian at /peer: tests start its servers in a network namespace that plays another machine. It is made
// once. AppArmor's compiler and its files go where the guest's daemon looks for them.
func addPeer(t *testing.T, root string) error {
	t.Helper()
	dir := filepath.Join(workDir(t), "peer")
	if _, err := os.Stat(dir + "/debootstrap"); err == nil {
		os.RemoveAll(dir) // it broke off
	}
	if _, err := os.Stat(dir + "/usr/sbin/smbd"); err != nil {
		if _, err := run("", "debootstrap", "--variant=minbase", "--include="+peerPackages, "bookworm", dir); err != nil {
			t.Skip("no Debian for the virtual machine:", err)
		}
		for _, waste := range []string{"/var/cache/apt/archives", "/var/lib/apt/lists", "/usr/share/doc", "/usr/share/man", "/usr/share/locale"} {
			os.RemoveAll(dir + waste)
		}
	}
	if err := os.MkdirAll(root+"/usr/share", 0o755); err != nil {
		return err
	}
	for from, to := range map[string]string{dir: "/peer", dir + "/usr/sbin/apparmor_parser": "/usr/sbin/", dir + "/etc/apparmor.d": "/etc/", dir + "/etc/apparmor": "/etc/",
		dir + "/usr/share/apparmor-features": "/usr/share/"} {
		if _, err := run("", "cp", "-a", from, root+to); err != nil {
			return err
		}
	}
	return nil
}
