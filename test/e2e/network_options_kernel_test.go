//go:build kernel

package e2e

import (
	"strings"
	"testing"
)

// Every option that Docker documents for bridge networks and their endpoints does its work, or is refused with the reason.
// Each case makes the network n with the options, runs the container c on it and looks: on the host, or in the container.
func TestBridgeOptions(t *testing.T) {
	w := newNetWorld(t)
	const b = "com.docker.network.bridge."
	w.docker("network", "create", "--subnet", "10.9.9.0/24", "beside")
	for _, c := range []struct {
		network, run string // flags
		host, inside string // what to look at; with %link the bridge
		want         []string
		not          string
		says         string // instead: the network, or the container, is refused with it
	}{
		{network: "-o " + b + "name=br-mine", host: "ip -br addr show br-mine", want: []string{"br-mine", "10.8.0.1/24"}},
		{network: "-o " + b + "name=br/mine", says: `bridge name "br/mine"`},
		{network: "-o " + b + "enable_icc=false", host: "bridge -d link show", want: []string{"isolated on"}},
		{network: "-o " + b + "enable_icc=no", says: "enable_icc"},
		{network: "-o " + b + "enable_ip_masquerade=false -o " + b + "name=br-n", host: "nft list set inet shoal masq4", not: "br-n"},
		{network: "-o " + b + "enable_ip_masquerade=true -o " + b + "name=br-n", host: "nft list set inet shoal masq4", want: []string{"br-n"}},
		{network: "-o " + b + "host_binding_ipv4=127.0.0.1", run: "-p 8080:80", host: "nft list map inet shoal pub4", want: []string{"127.0.0.1 . 8080"}},
		{network: "-o " + b + "host_binding_ipv4=localhost", says: "host_binding_ipv4"},
		{network: "-o " + b + "inhibit_ipv4=true -o " + b + "name=br-n", host: "ip addr show br-n", not: "10.8.0.1"},
		{network: "-o " + b + "gateway_mode_ipv4=nat-unprotected -o " + b + "name=br-n", host: "nft list set inet shoal open4", want: []string{"br-n"}},
		{network: "-o " + b + "gateway_mode_ipv4=routed -o " + b + "name=br-n", run: "-p 80", host: "nft list set inet shoal direct4", want: []string{"10.8.0.2 . 80"}},
		{network: "--internal -o " + b + "gateway_mode_ipv4=isolated -o " + b + "name=br-n", host: "ip addr show br-n", not: "10.8.0"},
		{network: "-o " + b + "gateway_mode_ipv4=isolated", says: "add --internal"},
		{network: "--ipv6 --subnet fd00:8::/64 -o " + b + "gateway_mode_ipv6=routed", run: "-p 80", host: "nft list set inet shoal direct6", want: []string{"fd00:8::2 . 80"}},
		{network: "-o " + b + "trusted_host_interfaces=up0:lo", run: "-p 8080:80", host: "nft list set inet shoal trusted4", want: []string{`"up0" . 0.0.0.0/0 . tcp . 10.8.0.2 . 80`, `"lo" . `}},
		{network: "-o " + b + "trusted_host_interfaces=up0,lo:a/b", says: `"a/b" is no name of a link`},
		{network: "-o com.docker.network.driver.mtu=1300", inside: "ip link show eth0", want: []string{"mtu 1300"}},
		{network: "-o com.docker.network.container_iface_prefix=lan", inside: "ip link", want: []string{"lan0"}, not: "eth0"},
		{network: "-o com.docker.network.container_iface_prefix=much-too-long", says: "at most 10"},
		{network: "-o com.docker.network.host_ipv4=" + hostIP + " -o " + b + "name=br-n", host: "nft list map inet shoal snat4", want: []string{"br-n", hostIP}},
		{network: "-o com.docker.network.host_ipv4=nonsense", says: "host_ipv4"},
		// Options of an endpoint.
		{run: "driver-opt=com.docker.network.endpoint.ifname=foo0", inside: "ip link", want: []string{"foo0"}, not: "eth0"},
		{run: "driver-opt=com.docker.network.endpoint.ifname=much/too", says: "interface name"},
		{run: "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.forwarding=0", inside: "cat /proc/sys/net/ipv4/conf/eth0/forwarding", want: []string{"0"}, not: "1"},
		{run: "driver-opt=com.docker.network.endpoint.sysctls=kernel.domainname=x", says: "net.X.Y.IFNAME"},
		{run: "mac-address=02:42:aa:bb:cc:dd", inside: "ip link show eth0", want: []string{"02:42:aa:bb:cc:dd"}},
	} {
		words := append([]string{"network", "create", "--subnet", "10.8.0.0/24"}, strings.Fields(c.network)...)
		r := w.Docker(append(words, "n")...)
		if r.Code == 0 {
			at := []string{"--network", "n"}
			if strings.Contains(c.run, "=") {
				at[1] = "name=n," + c.run
			} else {
				at = append(at, strings.Fields(c.run)...)
			}
			r = w.Docker(append(append([]string{"run", "-d", "--name", "box"}, at...), "toolbox", "sleep", "1000")...)
		}
		what := c.network + " " + c.run
		if (r.Code == 0) != (c.says == "") || !strings.Contains(r.Err, c.says) {
			t.Errorf("%s: %d %s, want %q", what, r.Code, r.Err, c.says)
		} else if c.says == "" {
			got := ""
			if c.host != "" {
				w.InNet(func() {
					out, err := w.Command("/bin/sh", "-c", c.host).CombinedOutput()
					if got = string(out); err != nil {
						t.Errorf("%s: %v %s", c.host, err, out)
					}
				})
			} else {
				got, _ = w.shell("box", c.inside)
			}
			wantIn(t, what, got, c.want...)
			if c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("%s: has %q: %s", what, c.not, got)
			}
			// The same options when it is connected later, and by the other command line.
			if strings.HasPrefix(c.run, "driver-opt=") {
				w.docker("network", "disconnect", "n", "box")
				w.docker("network", "connect", "beside", "box")
				w.docker("network", "connect", "--driver-opt", strings.TrimPrefix(c.run, "driver-opt="), "n", "box")
				got, _ = w.shell("box", strings.ReplaceAll(c.inside, "eth0", "eth1"))
				wantIn(t, "connect "+what, got, c.want...)
			}
		}
		w.API("DELETE", "/containers/box?force=1", nil)
		w.API("DELETE", "/networks/n", nil)
	}
	want(t, "left", strings.Join(strings.Fields(w.docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")), " "), "beside")
}

// A network that only holds configuration, and those that are made from it.
func TestConfigNetworks(t *testing.T) {
	w := newNetWorld(t)
	w.docker("network", "create", "--config-only", "--subnet", "10.8.0.0/24", "--ip-range", "10.8.0.128/25", "-o", "com.docker.network.driver.mtu=1300",
		"-o", "com.docker.network.bridge.name=br-conf", "--label", "color=red", "conf")
	want(t, "inspect", w.docker("network", "inspect", "-f", "{{.ConfigOnly}} {{.Driver}} {{.Scope}} {{(index .IPAM.Config 0).Subnet}}", "conf"), "true null local 10.8.0.0/24")
	w.docker("network", "create", "--config-from", "conf", "--label", "shape=round", "made")
	want(t, "made", w.docker("network", "inspect", "-f", `{{.ConfigFrom.Network}} {{.ConfigOnly}} {{.Driver}} {{(index .IPAM.Config 0).IPRange}} {{index .Labels "color"}} {{index .Labels "shape"}}`, "made"),
		"conf false bridge 10.8.0.128/25 red round")
	w.docker("run", "-d", "--name", "box", "--network", "made", "toolbox", "sleep", "1000")
	out, _ := w.shell("box", "ip addr show eth0")
	wantIn(t, "inside", out, "mtu 1300", "10.8.0.128/24")
	for _, c := range []struct{ args, says string }{
		{"network create --config-from conf again", "bridge br-conf belongs to the network made"},
		{"network create --config-from nosuch x", "configuration network nosuch not found"},
		{"network create --config-from bridge x", "bridge is no configuration network"},
		{"network create --config-from conf --subnet 10.7.0.0/24 x", "come from the configuration network conf"},
		{"network create --config-from conf -o a=b x", "come from the configuration network conf"},
		{"network create --config-from conf --ipv6 x", "come from the configuration network conf"},
		{"network create --config-only --config-from conf x", "cannot depend on another configuration network"},
		{"network create --config-only --internal x", "--internal"},
		{"network create --config-only conf", "already exists"},
		{"network create --config-only bridge", "predefined"},
		{"network create --config-only --subnet 10.8.0.1/24 x", "did you mean 10.8.0.0/24?"},
		{"network connect conf box", "holds only configuration"},
		{"run --rm --network conf whoami", "holds only configuration"},
		{"network rm conf", "in use by the networks made"},
	} {
		if r := w.Docker(strings.Fields(c.args)...); r.Code == 0 || !strings.Contains(r.Err, c.says) {
			t.Errorf("%s: %d %s, want %q", c.args, r.Code, r.Err, c.says)
		}
	}
	w.StopDaemon()
	w.StartDaemon()
	want(t, "after a restart", w.docker("network", "inspect", "-f", "{{.ConfigOnly}} {{len .IPAM.Config}}", "conf"), "true 1")
	w.docker("rm", "-f", "box")
	w.docker("network", "prune", "-f")
	want(t, "after prune", strings.Join(strings.Fields(w.docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")), " "), "conf")
	w.docker("network", "create", "-d", "macvlan", "--config-only", "--subnet", "10.6.0.0/24", "-o", "parent=up0", "direct")
	w.docker("network", "create", "-d", "macvlan", "--config-from", "direct", "wire")
	want(t, "macvlan", w.docker("network", "inspect", "-f", `{{.Driver}} {{index .Options "parent"}}`, "wire"), "macvlan up0")
	w.docker("network", "rm", "wire", "direct", "conf")
}
