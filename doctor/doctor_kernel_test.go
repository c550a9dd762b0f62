//go:build kernel

package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKernelCollect(t *testing.T) {
	root := t.TempDir()
	start := time.Now()
	f := Collect(context.Background(), Options{DataRoot: filepath.Join(root, "not", "there")})
	t.Logf("collected in %v", time.Since(start))
	if !f.Storage.Overlay.OK || !f.Network.NFTables.OK || !f.Network.Links["bridge"].OK || !f.Network.Links["veth"].OK || !f.Security.Seccomp.OK ||
		!f.Namespaces["user"].OK || !f.Cgroups.Writable.OK {
		t.Errorf("%+v", f)
	}
	for _, g := range Evaluate(f) {
		t.Logf("%s %s: %s", g.Severity, g.Code, g.Cause)
		if g.Severity == Error {
			t.Error(g)
		}
	}
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(after), ".shoal-doctor-") {
		t.Errorf("a mount is left:\n%s", after)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What firewalld, ufw, Red Hat's iptables and a hand-made table leave in the kernel is found as what it is.
func TestKernelFirewalls(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"a policy", "nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'", "by the policy of its chain FORWARD"},
		{"firewalld", "nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy accept; }';" +
			"nft add rule inet firewalld filter_FORWARD ct state established accept; nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited", "firewall-cmd"},
		{"a last rule that counts", "nft add table inet own; nft add chain inet own fw '{ type filter hook forward priority 0; }'; nft add rule inet own fw counter drop", "by the last rule of its chain fw"},
		{"a condition", "nft add table inet own; nft add chain inet own fw '{ type filter hook forward priority 0; }'; nft add rule inet own fw ip saddr 192.0.2.1 drop", ""},
		{"not the last rule", "nft add table inet own; nft add chain inet own fw '{ type filter hook forward priority 0; }'; nft add rule inet own fw ip saddr 192.0.2.1 drop; nft add rule inet own fw accept", ""},
		{"iptables", "iptables-nft -A FORWARD -j REJECT --reject-with icmp-host-prohibited", "by the last rule of its chain FORWARD"},
		{"another hook", "nft add table inet own; nft add chain inet own in '{ type filter hook input priority 0; policy drop; }'", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if program, _, _ := strings.Cut(tt.script, " "); exec.Command("which", program).Run() != nil {
				t.Skipf("no %s here", program)
			}
			var chains []Chain
			done := make(chan error)
			go func() {
				runtime.LockOSThread() // never unlocked: the namespace ends with the thread
				err := unix.Unshare(unix.CLONE_NEWNET)
				if err == nil {
					var out []byte
					if out, err = exec.Command("sh", "-ec", tt.script).CombinedOutput(); err != nil {
						err = fmt.Errorf("%w: %s", err, out)
					}
				}
				chains = Chains()
				done <- err
			}()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			found := firewallRules(Facts{Network: Network{Chains: chains}})
			if tt.want == "" && len(found) > 0 || tt.want != "" && (len(found) != 1 || !strings.Contains(found[0].Cause+found[0].Fix, tt.want)) {
				t.Errorf("%+v of %+v, want %q", found, chains, tt.want)
			}
		})
	}
}

// A name server that is there but says nothing is told from one that refuses and one that answers.
func TestKernelResolvers(t *testing.T) {
	done := make(chan []string)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			done <- nil
			return
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		deaf, err := net.ListenPacket("udp", "127.0.0.1:53")
		if err != nil {
			t.Error(err)
			done <- nil
			return
		}
		defer deaf.Close()
		out := []string{"deaf"}
		if answers(context.Background(), "127.0.0.1:53") {
			out = nil
		}
		if answers(context.Background(), "127.0.0.2:53") {
			out = append(out, "nobody")
		}
		talks, _ := net.ListenPacket("udp", "127.0.0.3:53")
		defer talks.Close()
		go func() {
			b := make([]byte, 512)
			n, from, _ := talks.ReadFrom(b)
			b[2], b[3] = 0x81, 0x85 // refused
			talks.WriteTo(b[:n], from)
		}()
		if answers(context.Background(), "127.0.0.3:53") {
			out = append(out, "talks")
		}
		done <- out
	}()
	if got := <-done; strings.Join(got, " ") != "deaf talks" {
		t.Error(got)
	}
}

// TestKernelTruth asks the kernel by other ways than Collect does: by iproute2's ip, and by the kernel's own lists.
func TestKernelTruth(t *testing.T) {
	f := Collect(context.Background(), Options{DataRoot: t.TempDir()})
	if _, err := exec.LookPath("ip"); err == nil {
		for kind, args := range map[string]string{"bridge": "", "veth": "", "dummy": "", "macvlan": "link p0", "ipvlan": "link p0", "vxlan": "id 1 dstport 4789", "wireguard": ""} {
			link, options := "", args
			if strings.HasPrefix(args, "link") {
				link, options = args, ""
			}
			c := exec.Command("sh", "-c", "ip link add p0 type veth peer name p1 && ip link add "+link+" name x0 type "+kind+" "+options)
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
			out, err := c.CombinedOutput()
			if p := f.Network.Links[kind]; !p.Tried || p.OK != (err == nil) {
				t.Errorf("%s: doctor says %+v, ip says %v %s", kind, p, err, out)
			}
		}
	}
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if (err == nil) != (f.Cgroups.Mode == "v2") {
		t.Errorf("control groups: doctor says %s", f.Cgroups.Mode)
	}
	for _, c := range strings.Fields(string(b)) {
		if !f.Cgroups.Controllers[c] {
			t.Errorf("the kernel has the controller %s, doctor says %v", c, f.Cgroups.Controllers)
		}
	}
	enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if has := strings.HasPrefix(string(enabled), "Y"); has != f.Security.AppArmor {
		t.Errorf("AppArmor: doctor says %v, the kernel %q", f.Security.AppArmor, enabled)
	}
	modules, _ := os.ReadFile("/proc/modules")
	t.Logf("links %v; loaded modules: %d", f.Network.Links, strings.Count(string(modules), "\n"))
}
