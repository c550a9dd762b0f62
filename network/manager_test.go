package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/network/plan"
)

type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func ok(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var bg = context.Background()

func fakeManager(t tester, dir string, k *kernel.Fake, live ...Live) *Manager {
	t.Helper()
	m, err := Open(Config{Root: filepath.Join(dir, "root"), Exec: filepath.Join(dir, "exec"), Kernel: k})
	ok(t, err)
	ok(t, m.Restore(bg, live))
	return m
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func spec(name string, subnets ...string) model.NetworkSpec {
	s := model.NetworkSpec{Name: name, IPv4: true}
	for _, p := range subnets {
		s.IPAM.Pools = append(s.IPAM.Pools, model.IPPool{Subnet: pfx(p)})
		s.IPv6 = s.IPv6 || pfx(p).Addr().Is6()
	}
	return s
}

func ask(name string, nets ...string) AttachRequest {
	ns, _ := os.Open(os.DevNull)
	r := AttachRequest{ContainerID: ids.New(), Name: name, Namespace: ns, Endpoints: map[string]model.EndpointSpec{}}
	for _, n := range nets {
		r.Endpoints[n] = model.EndpointSpec{}
	}
	return r
}

func local(t model.Proto, container, host uint16) model.PortBinding {
	return model.PortBinding{Port: model.Port{Number: container, Proto: t}, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: host}
}

func TestBuiltinNetworksStay(t *testing.T) {
	dir, k := t.TempDir(), kernel.NewFake()
	k.Up.Taken = []netip.Prefix{pfx("172.17.0.0/16")} // somebody's VPN
	k.Up.MTU = 1400
	m := fakeManager(t, dir, k)
	n, err := m.Resolve(bg, "bridge")
	ok(t, err)
	if n.IPAM.Pools[0].Subnet != pfx("172.18.0.0/16") || n.Link != "shoal0" || n.Options[model.OptMTU] != "1400" {
		t.Fatalf("%+v", n)
	}
	if k.Bridges["shoal0"].Addresses[0] != pfx("172.18.0.1/16") || !k.Forward[0] || k.Forward[1] {
		t.Fatalf("%+v", k.Bridges)
	}
	ok(t, m.Close())
	k.Up.Taken = nil
	again, err := fakeManager(t, dir, k).Resolve(bg, n.ID[:8])
	ok(t, err)
	if fmt.Sprint(again) != fmt.Sprint(n) {
		t.Fatalf("%+v\n%+v", again, n)
	}
}

// A range that was free when the default bridge was made may be somebody else's after a boot.
func TestDefaultBridgeEvadesNewRoutes(t *testing.T) {
	dir := t.TempDir()
	before := fakeManager(t, dir, kernel.NewFake())
	had := before.nets[before.names["bridge"]].IPAM.Pools[0].Subnet
	ok(t, before.Close())
	k := kernel.NewFake()
	k.Up.Taken = []netip.Prefix{pfx("0.0.0.0/0"), had}
	after := fakeManager(t, dir, k)
	if got := after.nets[after.names["bridge"]].IPAM.Pools[0].Subnet; got.Overlaps(had) {
		t.Errorf("the bridge keeps %s, to which the host has another route", got)
	}
	ok(t, after.Close())
	// While the bridge is there its own route is no reason.
	k.Up.Taken = append(k.Up.Taken, after.nets[after.names["bridge"]].IPAM.Pools[0].Subnet)
	again := fakeManager(t, dir, k)
	if got, had := again.nets[again.names["bridge"]].IPAM.Pools[0].Subnet, after.nets[after.names["bridge"]].IPAM.Pools[0].Subnet; got != had {
		t.Errorf("%s became %s", had, got)
	}
}

func TestCreateRefuses(t *testing.T) {
	m := fakeManager(t, t.TempDir(), kernel.NewFake())
	_, err := m.Create(bg, spec("a", "10.1.0.0/16"))
	ok(t, err)
	bad := func(change func(*model.NetworkSpec)) model.NetworkSpec {
		s := spec("x")
		change(&s)
		return s
	}
	for what, c := range map[string]struct {
		spec model.NetworkSpec
		kind errs.Kind
		says string
	}{
		"name taken":  {spec("a"), errs.Conflict, "already exists"},
		"overlap":     {spec("b", "10.1.2.0/24"), errs.Forbidden, "overlaps 10.1.0.0/16 of the network a"},
		"no driver":   {bad(func(s *model.NetworkSpec) { s.Driver = "nope" }), errs.NotFound, `"nope"`},
		"host driver": {bad(func(s *model.NetworkSpec) { s.Driver = "host" }), errs.Forbidden, "host"},
		"ipam driver": {bad(func(s *model.NetworkSpec) { s.IPAM.Driver = "nope" }), errs.NotFound, `"nope"`},
		"bad option":  {bad(func(s *model.NetworkSpec) { s.Options = map[string]string{model.OptMTU: "12"} }), errs.Invalid, "68"},
		"bad bool":    {bad(func(s *model.NetworkSpec) { s.Options = map[string]string{model.OptBridgeICC: "maybe"} }), errs.Invalid, "maybe"},
		"bad name":    {spec("a b"), errs.Invalid, "a b"},
	} {
		_, err := m.Create(bg, c.spec)
		if !errs.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v: %v", what, errs.KindOf(err), err)
		}
	}
	if got := len(m.List(bg)); got != 4 {
		t.Fatalf("%d networks", got)
	}
}

func TestCreateTakesBackOnFailure(t *testing.T) {
	for _, op := range []string{"bridge", "rules", "forwarding"} {
		dir, k := t.TempDir(), kernel.NewFake()
		k.Forward[0] = true
		m := fakeManager(t, dir, k)
		k.Fail = func(o string) error {
			if o == op {
				return errors.New("the kernel says no")
			}
			return nil
		}
		_, err := m.Create(bg, spec("a"))
		if err == nil {
			t.Fatalf("%s: no error", op)
		}
		k.Fail = nil
		files, _ := os.ReadDir(filepath.Join(dir, "root", "networks"))
		if len(files) != 3 || len(k.Bridges) != 1 || len(m.List(bg)) != 3 {
			t.Errorf("%s: %d records, %d bridges, %d networks", op, len(files), len(k.Bridges), len(m.List(bg)))
		}
		_, err = m.Create(bg, spec("a"))
		ok(t, err)
	}
}

func TestDamagedRecordIsSetAside(t *testing.T) {
	dir, k := t.TempDir(), kernel.NewFake()
	m := fakeManager(t, dir, k)
	n, err := m.Create(bg, spec("damaged"))
	ok(t, err)
	m.Close()
	path := filepath.Join(dir, "root", "networks", n.ID+".json")
	ok(t, os.WriteFile(path, []byte("{"), 0o600))
	m = fakeManager(t, dir, k)
	if _, err := m.Resolve(bg, "damaged"); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Fatal(err)
	}
	if len(k.Bridges) != 1 {
		t.Fatal("the bridge without a record stays")
	}
}

func TestAttach(t *testing.T) {
	k := kernel.NewFake()
	m := fakeManager(t, t.TempDir(), k)
	for _, s := range []model.NetworkSpec{spec("a", "10.1.0.0/24", "fd01::/64"), spec("b", "10.2.0.0/24")} {
		_, err := m.Create(bg, s)
		ok(t, err)
	}
	r := ask("web", "a", "b")
	r.Endpoints["b"] = model.EndpointSpec{GatewayPriority: 1, IPv4: netip.MustParseAddr("10.2.0.77"), MAC: model.MAC{2, 1, 2, 3, 4, 5}}
	at, err := m.Attach(bg, r)
	ok(t, err)
	a, b := at.Endpoints["a"], at.Endpoints["b"]
	if a.IPv4 != pfx("10.1.0.2/24") || a.IPv6 != pfx("fd01::2/64") || b.IPv4 != pfx("10.2.0.77/24") || a.Interface != "eth0" || b.Interface != "eth1" {
		t.Fatalf("%+v", at)
	}
	if a.MAC.String() != "02:42:0a:01:00:02" || b.MAC.String() != "02:01:02:03:04:05" {
		t.Fatal(a.MAC, b.MAC)
	}
	pa, pb := k.Plugs[plan.HostLink(m.instance, a.ID)], k.Plugs[plan.HostLink(m.instance, b.ID)]
	if fmt.Sprint(pa.Gateways) != "[fd01::1]" || fmt.Sprint(pb.Gateways) != "[10.2.0.1]" {
		t.Fatal(pa.Gateways, pb.Gateways)
	}
	for what, c := range map[string]struct {
		change func(*AttachRequest)
		kind   errs.Kind
		says   string
	}{
		"address in use": {func(r *AttachRequest) { r.Endpoints["b"] = model.EndpointSpec{IPv4: netip.MustParseAddr("10.2.0.77")} }, errs.Conflict, `container "web"`},
		"outside subnet": {func(r *AttachRequest) { r.Endpoints["b"] = model.EndpointSpec{IPv4: netip.MustParseAddr("10.3.0.77")} }, errs.Invalid, "10.2.0.0/24"},
		"default network": {func(r *AttachRequest) {
			r.Endpoints["bridge"] = model.EndpointSpec{IPv4: netip.MustParseAddr("172.17.0.9")}
		}, errs.Invalid, "bridge"},
		"no IPv6 there":   {func(r *AttachRequest) { r.Endpoints["b"] = model.EndpointSpec{IPv6: netip.MustParseAddr("fd01::9")} }, errs.Invalid, "fd01::9"},
		"unknown network": {func(r *AttachRequest) { r.Endpoints["nope"] = model.EndpointSpec{} }, errs.NotFound, "nope"},
		"bad interface": {func(r *AttachRequest) {
			r.Endpoints["b"] = model.EndpointSpec{DriverOpts: map[string]string{model.OptEndpointIfname: "a/b"}}
		}, errs.Invalid, "a/b"},
		"already attached":  {func(r *AttachRequest) { r.ContainerID = at.Endpoints["a"].ContainerID }, errs.Conflict, "already"},
		"publish elsewhere": {func(r *AttachRequest) { r.Ports = []model.PortBinding{{Port: model.Port{Number: 1, Proto: "x"}}} }, errs.Invalid, "x"},
	} {
		r := ask("other", "a")
		c.change(&r)
		if _, err := m.Attach(bg, r); !errs.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(k.Plugs) != 2 || len(m.conts) != 1 {
		t.Fatalf("refused containers left something: %d links, %d containers", len(k.Plugs), len(m.conts))
	}
}

// Whatever fails wherever: nothing stays behind, no address is used twice, and the kernel has what it should.
func TestAttachProperties(t *testing.T) {
	base, err := os.MkdirTemp("/dev/shm", "shoal-network-test-") // many records, each synced: not on a disk
	if err != nil {
		base = t.TempDir()
	}
	defer os.RemoveAll(base)
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "")
		ok(t, err)
		k := kernel.NewFake()
		m := fakeManager(t, dir, k)
		for _, s := range []model.NetworkSpec{spec("a", "10.1.0.0/29"), spec("b", "10.2.0.0/29", "fd02::/64")} {
			_, err := m.Create(bg, s)
			ok(t, err)
		}
		live := map[string]AttachRequest{}
		fail := func(t *rapid.T) {
			n := rapid.IntRange(0, 8).Draw(t, "steps before trouble")
			op := rapid.SampledFrom([]string{"plug", "rules", "names", "gateways", ""}).Draw(t, "trouble")
			k.Fail = func(o string) error {
				if n--; n < 0 && o == op {
					return errors.New("the kernel says no")
				}
				return nil
			}
		}
		nets := rapid.SampledFrom([][]string{{"a"}, {"b"}, {"a", "b"}, {"bridge"}})
		t.Repeat(map[string]func(*rapid.T){
			"attach": func(t *rapid.T) {
				fail(t)
				r := ask("c", nets.Draw(t, "networks")...)
				for range rapid.IntRange(0, 2).Draw(t, "ports") {
					r.Ports = append(r.Ports, local(model.TCP, 80, 0))
				}
				if _, err := m.Attach(bg, r); err == nil {
					live[r.ContainerID] = r
				}
				m.bg.Wait() // links are removed in the background
				k.Fail = nil
			},
			"connect": func(t *rapid.T) {
				for id, r := range live {
					fail(t)
					c := ask("c", rapid.SampledFrom([]string{"a", "b", "bridge"}).Draw(t, "network"))
					c.ContainerID = id
					m.Connect(bg, c)
					m.bg.Wait()
					k.Fail = nil
					_ = r
					return
				}
			},
			"disconnect": func(t *rapid.T) {
				for id := range live {
					m.Detach(bg, id, rapid.SampledFrom([]string{"a", "b", "bridge"}).Draw(t, "network"))
					return
				}
			},
			"detach": func(t *rapid.T) {
				for id := range live {
					ok(t, m.Detach(bg, id, ""))
					delete(live, id)
					return
				}
			},
			"": func(t *rapid.T) { m.bg.Wait(); checkManager(t, m, k, len(live)) },
		})
		for id := range live {
			ok(t, m.Detach(bg, id, ""))
		}
		m.bg.Wait()
		checkManager(t, m, k, 0)
		if m.holder.Len() != 0 || len(k.Plugs) != 0 {
			t.Fatalf("left over: %d ports, %d links", m.holder.Len(), len(k.Plugs))
		}
		ok(t, m.Close())
	})
}

func checkManager(t *rapid.T, m *Manager, k *kernel.Fake, containers int) {
	ok(t, m.Audit(bg)) // where the kernel refused to take something back
	if len(m.conts) != containers {
		t.Fatalf("%d containers, want %d", len(m.conts), containers)
	}
	have, _, _ := k.Rules()
	if del, add := plan.Diff(have, m.want); len(del)+len(add) > 0 {
		t.Fatalf("rules: %d too many, %d missing", len(del), len(add))
	}
	seen, plugs := map[netip.Addr]bool{}, 0
	for _, c := range m.conts {
		for _, e := range c.endpoints {
			plugs++
			if seen[e.IPv4.Addr()] {
				t.Fatalf("%s twice", e.IPv4)
			}
			seen[e.IPv4.Addr()] = true
			if _, there := k.Plugs[e.host]; !there {
				t.Fatalf("link %s is missing", e.host)
			}
		}
	}
	if len(k.Plugs) != plugs {
		t.Fatalf("%d links, want %d", len(k.Plugs), plugs)
	}
	for _, s := range m.nets {
		for _, p := range s.pools {
			fixed := 3 // network, broadcast, gateway
			if p.Subnet.Addr().Is6() {
				fixed = 2
			}
			if p.InUse() != fixed+len(s.users) {
				t.Fatalf("network %s: %d addresses in use for %d containers", s.Name, p.InUse(), len(s.users))
			}
		}
	}
}

func TestRestoreAndPrune(t *testing.T) {
	dir, k := t.TempDir(), kernel.NewFake()
	m := fakeManager(t, dir, k)
	for _, n := range []string{"a", "b"} {
		_, err := m.Create(bg, spec(n))
		ok(t, err)
	}
	r, gone := ask("web", "a"), ask("gone", "b")
	r.Ports = []model.PortBinding{local(model.TCP, 80, 0)}
	at, err := m.Attach(bg, r)
	ok(t, err)
	_, err = m.Attach(bg, gone)
	ok(t, err)
	m.Close()
	m = fakeManager(t, dir, k, Live{Attach: r, Path: os.DevNull, State: model.NetworkState{Endpoints: at.Endpoints, Ports: at.Ports}})
	if len(k.Plugs) != 1 {
		t.Fatalf("links %v", k.Plugs)
	}
	again := m.attachment(m.conts[r.ContainerID])
	if fmt.Sprint(again) != fmt.Sprint(Attachment{Endpoints: at.Endpoints, Ports: at.Ports}) {
		t.Fatalf("%+v\n%+v", again, at)
	}
	if err := m.Remove(bg, "a"); !errs.Is(err, errs.Forbidden) || !strings.Contains(err.Error(), `container "web"`) {
		t.Fatal(err)
	}
	if err := m.Remove(bg, "bridge"); !errs.Is(err, errs.Forbidden) {
		t.Fatal(err)
	}
	removed, err := m.Prune(bg, func(model.Network) bool { return false })
	if err != nil || fmt.Sprint(removed) != "[b]" {
		t.Fatal(removed, err)
	}
}

// --fixed-cidr alone: a part of the subnet that the default network has, or its subnet.
func TestDefaultBridgeRangeAlone(t *testing.T) {
	dir, k := t.TempDir(), kernel.NewFake()
	open := func(r string) model.Network {
		t.Helper()
		cfg := Config{Root: filepath.Join(dir, "root"), Exec: filepath.Join(dir, "exec"), Kernel: k}
		if r != "" {
			cfg.Bridge.IPv4.Range = pfx(r)
		}
		m, err := Open(cfg)
		ok(t, err)
		ok(t, m.Restore(bg, nil))
		n, err := m.Resolve(bg, "bridge")
		ok(t, err)
		ok(t, m.Close())
		return n
	}
	for _, c := range []struct{ flag, subnet, gateway, part string }{
		{"10.77.3.0/24", "10.77.3.0/24", "10.77.3.1", ""}, // the first start
		{"", "10.77.3.0/24", "10.77.3.1", ""},             // kept
		{"10.77.3.128/25", "10.77.3.0/24", "10.77.3.1", "10.77.3.128/25"},
		{"", "10.77.3.0/24", "10.77.3.1", ""},
		{"10.78.0.0/24", "10.78.0.0/24", "10.78.0.1", ""}, // lies elsewhere
	} {
		n := open(c.flag)
		p := n.IPAM.Pools[0]
		part := ""
		if p.Range.IsValid() {
			part = p.Range.String()
		}
		if len(n.IPAM.Pools) != 1 || p.Subnet != pfx(c.subnet) || p.Gateway.String() != c.gateway || part != c.part {
			t.Errorf("--fixed-cidr %q: %+v, want %+v", c.flag, n.IPAM.Pools, c)
		}
		if c.flag != "" && n.Chosen {
			t.Errorf("--fixed-cidr %s: the network would grow beyond it", c.flag)
		}
	}
}
