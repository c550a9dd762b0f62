//go:build kernel

package e2e

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/test/world"
)

// The daemon's flags about the default network do what they say.
func TestNetworkFlags(t *testing.T) {
	w := newNetWorld(t, "--ipv6", "--fixed-cidr-v6", "2001:db8:99::/64", "--bip", "10.44.0.1/24", "--fixed-cidr", "10.44.0.64/26", "--mtu", "1400",
		"--userland-proxy=false", "--ip", hostIP, "--icc=false", "--host-gateway-ip", "203.0.113.99",
		"--default-network-opt", "bridge=com.docker.network.driver.mtu=1380", "--default-address-pool", "base=10.60.0.0/16,size=24")
	w.docker("run", "-d", "--name", "web", "--hostname", "web", "-p", "8080:80", "--add-host", "gw:host-gateway", "toolbox", "sleep", "1000")
	want(t, "address", w.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}} {{.NetworkSettings.Networks.bridge.Gateway}}", "web"), "10.44.0.64 10.44.0.1")
	out, _ := w.shell("web", "ip addr show eth0; cat /etc/hosts")
	wantIn(t, "inside", out, "mtu 1400", "2001:db8:99::", "203.0.113.99\tgw")
	want(t, "port", w.docker("port", "web"), "80/tcp -> "+hostIP+":8080")
	w.silent(t, "no relay on ::1", true, "[::1]:8080")
	w.docker("network", "create", "n")
	wantIn(t, "defaults", w.docker("network", "inspect", "n"), `"10.60.0.0/24"`, `"com.docker.network.driver.mtu": "1380"`)
	w.docker("network", "rm", "n")
}

// With the host's policy, its firewall decides about published ports.
func TestNetworkHostPolicy(t *testing.T) {
	w := newNetWorld(t, "--publish-policy", "host")
	w.docker("run", "-d", "--name", "web", "--hostname", "web", "-p", "8080:80", "-p", "8081:80", "whoami")
	w.InNet(func() {
		for _, args := range [][]string{{"add", "table", "inet", "fw"}, {"add", "chain", "inet", "fw", "input", "{ type filter hook input priority 0; }"},
			{"add", "rule", "inet", "fw", "input", "tcp", "dport", "8080", "drop"}} {
			if out, err := w.Command("/usr/sbin/nft", args...).CombinedOutput(); err != nil {
				t.Fatalf("nft: %v %s", err, out)
			}
		}
	})
	w.reaches(t, "let in", false, hostIP+":8081", "web")
	w.silent(t, "kept out", false, hostIP+":8080")
	wantIn(t, "ports", w.Must(w.Shoal("ports")), "as far as the host's firewall allows", "daemon")
}

// A bridge that was there before is used, and stays as it was.
func TestNetworkOnBridgeOfTheHost(t *testing.T) {
	w := newNetWorld(t)
	w.StopDaemon()
	w.InNet(func() {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}}); err != nil {
			t.Fatal(err)
		}
		l, _ := netlink.LinkByName("lan0")
		addr, _ := netlink.ParseAddr("10.90.0.7/24")
		if err := netlink.AddrAdd(l, addr); err != nil {
			t.Fatal(err)
		}
	})
	w.StartDaemon()
	w.docker("network", "create", "--subnet", "10.91.0.0/24", "-o", "com.docker.network.bridge.name=lan0", "lan")
	w.docker("run", "-d", "--name", "web", "--hostname", "web", "--network", "lan", "-p", "8080:80", "whoami")
	w.reaches(t, "published", false, hostIP+":8080", "web", outsideIP)
	w.docker("rm", "-f", "web")
	w.docker("network", "rm", "lan")
	w.InNet(func() {
		l, err := netlink.LinkByName("lan0")
		if err != nil {
			t.Fatal("the host's bridge is gone")
		}
		addrs, _ := netlink.AddrList(l, netlink.FAMILY_V4)
		for _, a := range addrs {
			if a.IPNet.String() == "10.90.0.7/24" {
				return
			}
		}
		t.Errorf("the host's address is gone: %v", addrs)
	})
}

// Without a default bridge a container that names no network has the loopback alone, also one from before.
func TestNoDefaultBridge(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("create", "--name", "before", "toolbox", "sh", "-c", "ip link show | grep -c '^[0-9]'"))
	w.StopDaemon()
	w.Flag("--bridge", "none")
	w.StartDaemon()
	want(t, "networks", w.Must(w.Docker("network", "ls", "--format", "{{.Name}}")), "host\nnone")
	want(t, "links of the one from before", w.Must(w.Docker("start", "-a", "before")), "1")
	for _, args := range []string{"run --rm", "run --rm --network default", "run --rm --network bridge", "run --rm -p 8099:80"} {
		want(t, "links with "+args, w.Must(w.Docker(append(strings.Fields(args), "toolbox", "sh", "-c", "ip link show | grep -c '^[0-9]'")...)), "1")
	}
	w.Must(w.Docker("network", "create", "own"))
	want(t, "links on a network of one's own", w.Must(w.Docker("run", "--rm", "--network", "own", "toolbox", "sh", "-c", "ip link show | grep -c '^[0-9]'")), "2")
	w.Must(w.Docker("network", "rm", "own"))
}

// A range without --bip is the default network's subnet.
func TestFixedRangeAlone(t *testing.T) {
	w := world.New(t, "--fixed-cidr", "10.45.7.0/28")
	want(t, "subnet", w.Must(w.Docker("network", "inspect", "bridge", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}} {{.IPRange}}{{end}}")), "10.45.7.0/28 10.45.7.1")
	wantIn(t, "address", w.Must(w.Docker("run", "--rm", "toolbox", "ip", "addr", "show", "eth0")), "10.45.7.2/28")
}
