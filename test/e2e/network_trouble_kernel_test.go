//go:build kernel

package e2e

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// What is asked wrongly, or cannot be had, is refused with what was asked, what was found and what to do; nothing is
// half-made. A line is a command and what its message must say; commands without a message must work.
func TestNetworkTrouble(t *testing.T) {
	w := newNetWorld(t, "--default-address-pool", "base=10.60.0.0/23,size=24")
	w.InNet(func() {
		l, err := netlink.LinkByName("up0")
		if err != nil {
			t.Fatal(err)
		}
		a, _ := netlink.ParseAddr("10.70.0.1/16")
		if err := netlink.AddrAdd(l, a); err != nil {
			t.Fatal(err)
		}
	})
	for _, c := range []struct{ args, says string }{
		// Names, ranges, families.
		{"network create --subnet 10.1.0.0/24 a", ""},
		{"network create a", "network with name a already exists"},
		{"network create bridge", "predefined bridge network"},
		{"network create --subnet 10.1.0.128/25 b", "subnet 10.1.0.128/25 overlaps 10.1.0.0/24 of the network a"},
		{"network create --subnet 10.1.0.1/24 b", "did you mean 10.1.0.0/24?"},
		{"network create --subnet 10.1.0.0/33 b", "10.1.0.0/33"},
		{"network create --subnet nonsense b", "nonsense"},
		{"network create --subnet 10.2.0.0/24 --subnet 10.2.0.0/16 b", "overlap"},
		{"network create --subnet 10.2.0.0/24 --gateway 10.3.0.1 b", "10.3.0.1"},
		{"network create --subnet 10.2.0.0/24 --ip-range 10.3.0.0/25 b", "10.3.0.0/25"},
		{"network create --subnet 10.2.0.0/24 --aux-address x=10.3.0.9 b", "10.3.0.9"},
		{"network create --subnet 2001:db8:7::/64 b", "IPv6"},
		{"network create --ipv4=false b", "both IPv4 and IPv6 are off"},
		{"network create --ipv4=false --ipv6 --subnet 10.2.0.0/24 b", "IPv4 is off"},
		// The host's own ranges are never chosen; those that are left run out.
		{"network create p1", ""}, // the default network has the other /24
		{"network create p2", "every subnet of the default address pools [10.60.0.0/23] overlaps"},
		{"network rm p1", ""},
		// Drivers and options.
		{"network create -d nosuch b", `there is no network driver "nosuch"; built in are bridge, macvlan`},
		{"network create -d overlay b", "swarm init"},
		{"network create -d host b", "only one network"},
		{"network create --scope swarm b", "needs a cluster"},
		{"network create --ipam-driver nosuch b", `there is no IPAM driver "nosuch"`},
		{"network create -o com.docker.network.bridge.enable_icc=maybe --subnet 10.9.0.0/24 b", "maybe"},
		{"network create -o com.docker.network.driver.mtu=20 --subnet 10.9.0.0/24 b", "68 to 65535"},
		{"network create -o com.docker.network.bridge.name=name-that-is-too-long --subnet 10.9.0.0/24 b", "at most 15"},
		{"network create -o com.docker.network.bridge.name=up0 --subnet 10.9.0.0/24 b", "not a bridge"},
		{"network create -o com.docker.network.bridge.gateway_mode_ipv4=odd --subnet 10.9.0.0/24 b", "nat, nat-unprotected, routed or isolated"},
		{"network create -o com.docker.network.bridge.gateway_mode_ipv4=isolated --subnet 10.9.0.0/24 b", "add --internal"},
		{"network create -d macvlan -o parent=nosuch0 --subnet 10.9.0.0/24 b", "nosuch0"},
		{"network create -d macvlan -o macvlan_mode=odd --subnet 10.9.0.0/24 b", "bridge, private, vepa, passthru"},
		{"network create -d macvlan -o parent=up0.5000 --subnet 10.9.0.0/24 b", "1 to 4094"},
		{"network create -d ipvlan -o ipvlan_mode=l9 --subnet 10.9.0.0/24 b", "l2, l3, l3s"},
		// Endpoints.
		{"run -d --name web --network a --ip 10.1.0.50 -p 8080:80 whoami", ""},
		{"run --rm --network a --ip 10.1.0.50 whoami", `10.1.0.50 is in use by container "web"`},
		{"run --rm --network a --ip 10.1.0.1 whoami", "10.1.0.1"},
		{"run --rm --network a --ip 10.8.0.1 whoami", "10.8.0.1"},
		{"run --rm --network a --ip 999.8.0.1 whoami", "999.8.0.1"},
		{"run --rm --network a --ip6 2001:db8::5 whoami", "address family"},
		{"run --rm --ip 172.17.0.9 whoami", "networks you made"},
		{"run --rm --network nosuch whoami", "nosuch not found"},
		{"run --rm -p 8080:80 whoami", `port 8080/tcp is already published by container "web"`},
		{"run --rm -p 192.0.2.77:8081:80 whoami", "192.0.2.77"},
		{"run --rm --network a --mac-address 01:00:00:00:00:01 whoami", "multicast"},
		{"run --rm --network a --link-local-ip nonsense whoami", "nonsense"},
		{"run --rm --network name=a,driver-opt=com.docker.network.endpoint.sysctls=kernel.x=1 whoami", "net.X.Y.IFNAME"},
		{"run --rm --network name=a,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nosuch=1 whoami", "nosuch"},
		{"network connect a web", "endpoint with name web already exists in network a"},
		{"network connect nosuch web", "nosuch not found"},
		{"network connect a nosuch", "nosuch"},
		{"network connect host web", "host"},
		{"network disconnect bridge web", "is not connected"},
		{"network rm a", `network a has active endpoints (containers: web)`},
		{"network rm nosuch", "nosuch not found"},
		{"network rm bridge", "pre-defined"},
		{"network create --subnet 10.6.0.0/30 tiny", ""},
		{"run -d --name one --network tiny whoami", ""},
		{"run --rm --network tiny whoami", "10.6.0.0/30"},
		{"network ls --filter odd=1", "invalid filter 'odd'"},
		{"network prune -f --filter until=yesterday", "yesterday"},
		{"rm -f web one", ""},
	} {
		r := w.Docker(strings.Fields(c.args)...)
		if (r.Code == 0) != (c.says == "") || !strings.Contains(r.Err, c.says) {
			t.Errorf("%s: %d %s\nwant %q", c.args, r.Code, r.Err, c.says)
		}
	}
	want(t, "nothing half-made", w.docker("ps", "-aq"), "")
	want(t, "networks", strings.Join(strings.Fields(w.docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")), " "), "a tiny")
}

// The options of a container's endpoint do what they say.
func TestEndpointOptions(t *testing.T) {
	w := newNetWorld(t)
	w.docker("network", "create", "--subnet", "10.1.0.0/24", "a")
	w.docker("network", "create", "--subnet", "10.2.0.0/24", "b")
	w.docker("network", "create", "--ipv4=false", "--ipv6", "--subnet", "2001:db8:6::/64", "six")
	w.docker("run", "-d", "--name", "box", "--network", "name=a,ip=10.1.0.9,mac-address=02:11:22:33:44:55,alias=other,link-local-ip=169.254.7.7,gw-priority=1,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1",
		"--network", "name=b,gw-priority=5,driver-opt=com.docker.network.endpoint.ifname=lan7", "toolbox", "sleep", "1000")
	out, _ := w.shell("box", "ip addr; ip route; cat /proc/sys/net/ipv4/conf/eth0/log_martians")
	wantIn(t, "inside", out, "10.1.0.9/24", "02:11:22:33:44:55", "169.254.7.7/16", "default via 10.2.0.1 dev lan7", "\n1")
	w.docker("network", "disconnect", "b", "box")
	out, _ = w.shell("box", "ip route")
	wantIn(t, "the other gateway", out, "default via 10.1.0.1")
	w.docker("network", "connect", "--gw-priority", "9", "--alias", "again", "--ip", "10.2.0.7", "b", "box")
	out, _ = w.shell("box", "ip route; ip addr show eth1")
	wantIn(t, "and back", out, "default via 10.2.0.1 dev eth1", "10.2.0.7/24")
	wantIn(t, "alias", w.docker("run", "--rm", "--network", "b", "toolbox", "ping", "-c", "1", "-w", "2", "again"), "10.2.0.7")
	w.docker("run", "-d", "--name", "web6", "--hostname", "web6", "--network", "six", "-p", "8086:80", "whoami")
	w.reaches(t, "IPv6 only, published", false, "["+hostIP6+"]:8086", "web6", outsideIP6)
	// SCTP: the packet filter carries it.
	w.docker("run", "-d", "--name", "sctp", "-p", "7000:7000/sctp", "toolbox", "sleep", "1000")
	wantIn(t, "SCTP", w.Must(w.Shoal("ports", "sctp")), "7000", "sctp")
	w.docker("network", "create", "--subnet", "10.5.0.0/24", "-o", "com.docker.network.bridge.inhibit_ipv4=true", "-o", "com.docker.network.bridge.name=br-bare", "bare")
	w.docker("run", "-d", "--name", "bare1", "--network", "bare", "toolbox", "sleep", "1000")
	w.InNet(func() {
		l, err := netlink.LinkByName("br-bare")
		if err != nil {
			t.Fatal(err)
		}
		if as, _ := netlink.AddrList(l, netlink.FAMILY_V4); len(as) > 0 {
			t.Errorf("a bridge that shall have no address has %v", as)
		}
	})
	wantIn(t, "among themselves", w.docker("run", "--rm", "--network", "bare", "toolbox", "ping", "-c", "1", "-w", "2", "bare1"), "10.5.0.2")
	w.docker("rm", "-f", "bare1")
	w.docker("network", "rm", "bare")
	// Lists and prune.
	for filter, names := range map[string]string{"driver=bridge": "a b bridge six", "name=si": "six", "type=builtin": "bridge host none", "dangling=true": "", "dangling=false": "a b bridge host none six", "scope=swarm": ""} {
		want(t, filter, strings.Join(strings.Fields(w.docker("network", "ls", "--filter", filter, "--format", "{{.Name}}")), " "), names)
	}
	w.docker("network", "create", "--label", "keep=yes", "kept")
	w.docker("network", "create", "gone")
	wantIn(t, "prune", w.docker("network", "prune", "-f", "--filter", "label!=keep=yes"), "gone")
	w.docker("network", "prune", "-f", "--filter", "until=24h")
	want(t, "after prune", strings.Join(strings.Fields(w.docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")), " "), "a b kept six")
}
