//go:build kernel

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/netplugin"
	"github.com/shoalhq/shoal/test/world"
)

// A network and IPAM plug-in of Docker's protocol: what it makes works, what it refuses is told, and whether it hangs,
// dies or comes back, it is not waited for and nothing is left in it.
func TestNetworkPlugin(t *testing.T) {
	dir := t.TempDir()
	w := newNetWorld(t, "--plugin-dir", dir, "--plugin-timeout", "1")
	p, err := netplugin.Serve(dir, "tnet", w.InNet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.Stop() }()
	w.docker("network", "create", "-d", "tnet", "--ipam-driver", "tnet", "--subnet", "10.77.0.0/24", "-o", "color=blue", "far")
	wantIn(t, "inspect", w.docker("network", "inspect", "-f", "{{.Driver}} {{.IPAM.Driver}} {{json .IPAM.Config}} {{json .Options}}", "far"),
		"tnet tnet", `"Subnet":"10.77.0.0/24"`, `"Gateway":"10.77.0.1"`, "blue")
	w.docker("run", "-d", "--name", "web", "--hostname", "web", "--network", "far", "-p", "8080:80", "whoami")
	want(t, "address", w.docker("inspect", "-f", "{{.NetworkSettings.Networks.far.IPAddress}} {{.NetworkSettings.Networks.far.Gateway}}", "web"), "10.77.0.2 10.77.0.1")
	tool := w.docker("run", "--rm", "--network", "far", "--ip", "10.77.0.9", "--mac-address", "02:aa:bb:cc:dd:ee", "toolbox", "sh", "-c",
		"ip addr show plug0; ip route; "+asks("http://web/")+"; "+asks("http://10.77.0.2/"))
	wantIn(t, "in a container", tool, "10.77.0.9/24", "02:aa:bb:cc:dd:ee", "default via 10.77.0.1", "203.0.113.0/24", "GET /")
	p.Lock()
	published := 0
	for _, n := range p.Published {
		published += n
	}
	p.Unlock()
	if published != 1 {
		t.Errorf("the driver was asked to publish %d ports", published)
	}

	// On a bridge, with the plug-in's addresses only; and beside a bridge.
	w.docker("network", "create", "--ipam-driver", "tnet", "near")
	wantIn(t, "bridge", w.docker("run", "--rm", "--network", "near", "toolbox", "ip", "addr", "show", "eth0"), "10.91.0.2/24")
	w.docker("network", "connect", "near", "web")
	wantIn(t, "connected", w.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web"), "10.77.0.2", "10.91.0.2")
	w.docker("network", "disconnect", "far", "web")
	w.docker("network", "connect", "--ip", "10.77.0.33", "far", "web")
	wantIn(t, "back", w.docker("run", "--rm", "--network", "far", "toolbox", "sh", "-c", asks("http://10.77.0.33/")), "GET /")

	for _, c := range []struct{ args, err string }{
		{"network create -d nosuch x", `there is no network driver "nosuch"`},
		{"network create -d nosuch x", "no nosuch.sock, nosuch.spec or nosuch.json in " + dir},
		{"network create --ipam-driver nosuch x", `there is no IPAM driver "nosuch"`},
		{"run --rm --network far --ip 10.77.0.33 whoami", "10.77.0.33 cannot be had"},
		{"run --rm --network far --ip 10.99.0.1 whoami", "is in no subnet of the network"},
		{"network rm far", "active endpoints"},
	} {
		if r := w.Docker(strings.Fields(c.args)...); r.Code == 0 || !strings.Contains(r.Err, c.err) {
			t.Errorf("%s: %d %s\nwant %q", c.args, r.Code, r.Err, c.err)
		}
	}
	// Each step refused, or without an answer: told within the limit, and nothing stays.
	for _, method := range []string{"IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join", "NetworkDriver.ProgramExternalConnectivity"} {
		p.Lock()
		p.Refuse[method] = "not on Sundays"
		p.Unlock()
		if r := w.Docker("run", "--rm", "--network", "far", "whoami"); r.Code != 125 || !strings.Contains(r.Err, "plug-in tnet: "+method+": not on Sundays") {
			t.Errorf("%s refused: %d %s", method, r.Code, r.Err)
		}
		p.Lock()
		delete(p.Refuse, method)
		p.Hang[method] = true
		p.Unlock()
		began := time.Now()
		if r := w.Docker("run", "--rm", "--network", "far", "whoami"); r.Code != 125 || !strings.Contains(r.Err, "has not answered "+method+" within 1") {
			t.Errorf("%s hangs: %d %s", method, r.Code, r.Err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s hangs: took %s", method, took)
		}
		p.Lock()
		delete(p.Hang, method)
		p.Unlock()
	}
	// The daemon dies, its container too: what the plug-in has of it goes at the next start.
	pid := w.docker("inspect", "-f", "{{.State.Pid}}", "web")
	w.docker("run", "-d", "--name", "stays", "--network", "far", "whoami")
	w.KillDaemon()
	w.Must(w.Run("/bin/kill", "-9", pid))
	w.StartDaemon()
	waitFor(t, "the plug-in forgets a container that is gone", func() string {
		p.Lock()
		defer p.Unlock()
		if len(p.Endpoints) != 1 || len(p.Joined) != 1 {
			return fmt.Sprint(p.Endpoints, p.Joined)
		}
		return ""
	})
	wantIn(t, "still connected", w.docker("inspect", "-f", "{{json .NetworkSettings.Networks.far}}", "stays"), "10.77.0.")
	// The plug-in dies: starts say so at once; when it is back, all is as before.
	p.Stop()
	if r := w.Docker("run", "--rm", "--network", "far", "whoami"); r.Code != 125 || !strings.Contains(r.Err, "tnet") {
		t.Errorf("dead plug-in: %d %s", r.Code, r.Err)
	}
	w.docker("rm", "-f", "stays", "web")
	if err := p.Start(dir, "tnet"); err != nil {
		t.Fatal(err)
	}
	w.KillDaemon()
	w.StartDaemon()
	waitFor(t, "the plug-in is told what it missed", p.Left)
	w.docker("network", "rm", "far", "near")
	p.Lock()
	defer p.Unlock()
	if len(p.Networks)+len(p.Pools)+len(p.Taken) > 0 {
		t.Errorf("left: %v %v %v", p.Networks, p.Pools, p.Taken)
	}
}

// A plug-in that ends at any call of a container's life, or a network's: told, nothing is half-made, and nothing stays in it
// when it is back.
func TestNetworkPluginDies(t *testing.T) {
	dir := t.TempDir()
	w := newNetWorld(t, "--plugin-dir", dir, "--plugin-timeout", "2")
	p, err := netplugin.Serve(dir, "tdie", w.InNet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.Stop() }()
	w.docker("network", "create", "-d", "tdie", "--ipam-driver", "tdie", "--subnet", "10.77.0.0/24", "far")
	back := func(method string) {
		p.Lock()
		delete(p.Die, method)
		p.Unlock()
		if err := p.Start(dir, "tdie"); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
	dies := func(method string) {
		p.Lock()
		p.Die[method] = true
		p.Unlock()
	}
	for _, method := range []string{"IpamDriver.GetDefaultAddressSpaces", "IpamDriver.RequestPool", "IpamDriver.RequestAddress", "NetworkDriver.CreateNetwork"} {
		dies(method)
		if r := w.Docker("network", "create", "-d", "tdie", "--ipam-driver", "tdie", "x"); r.Code == 0 || !strings.Contains(r.Err, "tdie") {
			t.Errorf("create, dies at %s: %d %s", method, r.Code, r.Err)
		}
		back(method)
	}
	for _, method := range []string{"IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join", "NetworkDriver.ProgramExternalConnectivity"} {
		dies(method)
		if r := w.Docker("run", "--rm", "--network", "far", "-p", "8080:80", "whoami"); r.Code != 125 || !strings.Contains(r.Err, "tdie") {
			t.Errorf("run, dies at %s: %d %s", method, r.Code, r.Err)
		}
		back(method)
	}
	for _, method := range []string{"NetworkDriver.RevokeExternalConnectivity", "NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"} {
		w.docker("run", "-d", "--name", "web", "--network", "far", "-p", "8080:80", "whoami")
		dies(method)
		if r := w.Docker("rm", "-f", "web"); r.Code != 0 {
			t.Errorf("rm, dies at %s: %d %s", method, r.Code, r.Err)
		}
		back(method)
	}
	w.docker("run", "--rm", "--network", "far", "whoami", "--help")
	w.StopDaemon()
	w.StartDaemon() // what it did not hear of is told again
	waitFor(t, "the plug-in is told what it missed", p.Left)
	for _, method := range []string{"NetworkDriver.DeleteNetwork", "IpamDriver.ReleasePool"} {
		dies(method)
		if r := w.Docker("network", "rm", "far"); r.Code == 0 || !strings.Contains(r.Err, "tdie") {
			t.Errorf("network rm, dies at %s: %d %s", method, r.Code, r.Err)
		}
		back(method)
	}
	w.docker("network", "rm", "far")
	want(t, "networks", w.docker("network", "ls", "-q", "--filter", "type=custom"), "")
}

// An IPAM plug-in that forgets what it gave is asked for the same again when the daemon starts, before anybody gets another
// address of it; also one that is there only later.
func TestIPAMReplay(t *testing.T) {
	dir := t.TempDir()
	w := newNetWorld(t, "--plugin-dir", dir, "--plugin-timeout", "2")
	p, err := netplugin.Serve(dir, "tmem", w.InNet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.Stop() }()
	p.Replay = true
	w.docker("network", "create", "--ipam-driver", "tmem", "--subnet", "10.77.0.0/24", "mem")
	w.docker("run", "-d", "--name", "one", "--network", "mem", "whoami")
	want(t, "address", w.docker("inspect", "-f", "{{.NetworkSettings.Networks.mem.IPAddress}}", "one"), "10.77.0.2")
	for round, late := range []bool{false, true} {
		w.KillDaemon()
		p.Forget()
		if late {
			p.Stop()
		}
		w.StartDaemon()
		if late {
			if r := w.Docker("run", "--rm", "--network", "mem", "whoami", "--help"); r.Code != 125 || !strings.Contains(r.Err, "tmem") {
				t.Errorf("without the plug-in: %d %s", r.Code, r.Err)
			}
			if err := p.Start(dir, "tmem"); err != nil {
				t.Fatal(err)
			}
		}
		wantIn(t, "the next address", w.docker("run", "--rm", "--network", "mem", "toolbox", "ip", "addr", "show", "eth0"), "10.77.0.3/24")
		p.Lock()
		if len(p.Pools) != 1 || len(p.Taken) != 2 { // the gateway's and the container's
			t.Errorf("round %d: pools %v, addresses %v", round, p.Pools, p.Taken)
		}
		p.Unlock()
	}
	w.docker("rm", "-f", "one")
	w.docker("network", "rm", "mem")
	p.Lock()
	defer p.Unlock()
	if len(p.Pools)+len(p.Taken) > 0 {
		t.Errorf("left: pools %v, addresses %v", p.Pools, p.Taken)
	}
}

// waitFor waits until trouble says nothing.
func waitFor(t *testing.T, what string, trouble func() string) {
	t.Helper()
	said := ""
	if !world.Await(func() bool { said = trouble(); return said == "" }) {
		t.Errorf("%s: %s", what, said)
	}
}

const cniBin = "/usr/lib/cni"

// CNI configurations as a driver, with Debian's plug-ins.
func TestCNI(t *testing.T) {
	if _, err := os.Stat(cniBin + "/bridge"); err != nil {
		t.Skip("needs the package containernetworking-plugins")
	}
	conf, data, bin := t.TempDir(), t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(conf, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(bin+"/sleepy", []byte("#!/bin/sh\ntest $CNI_COMMAND = DEL || sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("10-blue.conflist", `{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"bridge","bridge":"cniblue","isGateway":true,
		"ipam":{"type":"host-local","dataDir":"`+data+`","ranges":[[{"subnet":"10.66.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},{"type":"tuning","capabilities":{"mac":true}}]}`)
	write("20-gone.conf", `{"cniVersion":"0.4.0","name":"gone","type":"nosuchplugin"}`)
	write("30-old.conf", `{"cniVersion":"0.2.0","name":"old","type":"bridge"}`)
	write("40-slow.conf", `{"cniVersion":"1.0.0","name":"slow","type":"sleepy"}`)
	w := newNetWorld(t, "--cni-bin-dir", cniBin, "--cni-bin-dir", bin, "--cni-conf-dir", conf, "--plugin-timeout", "1")
	w.docker("network", "create", "-d", "cni", "blue")
	w.docker("network", "create", "-d", "cni", "-o", "config="+conf+"/10-blue.conflist", "same")
	w.docker("run", "-d", "--name", "web", "--hostname", "web", "--network", "blue", "-p", "8080:80", "whoami")
	want(t, "address", w.docker("inspect", "-f", "{{.NetworkSettings.Networks.blue.IPAddress}} {{.NetworkSettings.Networks.blue.Gateway}}", "web"), "10.66.0.2 10.66.0.1")
	wantIn(t, "names and routes", w.docker("run", "--rm", "--network", "same", "toolbox", "sh", "-c", "ip addr show eth0; ip route; "+asks("http://10.66.0.2/")),
		"10.66.0.3/24", "default via 10.66.0.1", "GET /")
	w.reaches(t, "published", false, hostIP+":8080", "web")
	w.reaches(t, "published on the loopback", true, "127.0.0.1:8080", "web")
	w.docker("network", "connect", "bridge", "web")
	w.docker("network", "disconnect", "blue", "web")
	w.docker("network", "connect", "blue", "web")
	for _, c := range []struct{ args, err string }{
		{"network create -d cni red", `no CNI configuration of a network "red" in ` + conf},
		{"network create -d cni gone", `CNI plug-in "nosuchplugin" is in none of ` + cniBin},
		{"network create -d cni old", `cniVersion "0.2.0"`},
		{"network create -d cni -o config=/nosuch x", "/nosuch"},
		{"network create -d cni --subnet 10.1.0.0/24 blue2", "leave --subnet"},
		{"run --rm --network blue --ip 10.88.0.1 whoami", "CNI plug-in bridge: ADD for network blue: "},
	} {
		if r := w.Docker(strings.Fields(c.args)...); r.Code == 0 || !strings.Contains(r.Err, c.err) {
			t.Errorf("%s: %d %s\nwant %q", c.args, r.Code, r.Err, c.err)
		}
	}
	w.docker("network", "create", "-d", "cni", "slow")
	if r := w.Docker("run", "--rm", "--network", "slow", "whoami"); r.Code != 125 || !strings.Contains(r.Err, "has not ended within 1") {
		t.Errorf("slow: %d %s", r.Code, r.Err)
	}
	pid := w.docker("inspect", "-f", "{{.State.Pid}}", "web")
	w.KillDaemon()
	w.Must(w.Run("/bin/kill", "-9", pid))
	w.StartDaemon()
	left := func() string {
		files, _ := filepath.Glob(data + "/blue/10.66.*")
		return strings.Join(files, " ")
	}
	waitFor(t, "addresses are given back", left)
	w.docker("start", "web")
	w.docker("rm", "-f", "web")
	want(t, "left", left(), "")
	w.docker("network", "rm", "blue", "same", "slow")
}
