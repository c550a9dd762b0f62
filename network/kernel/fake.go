package kernel

import (
	"context"
	"fmt"
	"github.com/shoalhq/shoal/model"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/shoalhq/shoal/network/plan"
)

// Fake is a kernel in memory, for tests without root. It refuses what the real one would: plugging into a bridge that is
// not there, a link's name twice, taking out a rule that is not in.
type Fake struct {
	mu      sync.Mutex
	Bridges map[string]plan.Bridge
	Plugs   map[string]plan.Plug
	Table   plan.Rules // nil: not there
	Up      Uplink
	Forward [2]bool // IPv4, IPv6
	// Fail, when set, is asked before every change; its error is the change's.
	Fail func(op string) error
}

// NewFake is a host with one uplink and nothing of ours.
func NewFake() *Fake {
	return &Fake{Bridges: map[string]plan.Bridge{}, Plugs: map[string]plan.Plug{}, Up: Uplink{MTU: 1500}}
}

func (f *Fake) step(op string) error {
	if f.Fail == nil {
		return nil
	}
	return f.Fail(op)
}

// Namespace gives a file that is no namespace.
func (f *Fake) Namespace(*model.IDMaps) (*os.File, error) {
	if err := f.step("namespace"); err != nil {
		return nil, err
	}
	return os.Open(os.DevNull)
}

// EnsureBridge notes the bridge.
func (f *Fake) EnsureBridge(b plan.Bridge) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("bridge"); err != nil {
		return false, err
	}
	old, had := f.Bridges[b.Name]
	f.Bridges[b.Name] = b
	return !had || !slices.Equal(old.Addresses, b.Addresses) || old.MTU != b.MTU, nil
}

// Bridge says what a test, or EnsureBridge, noted.
func (f *Fake) Bridge(name string) (BridgeFacts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, there := f.Bridges[name]
	return BridgeFacts{There: there, Foreign: there && b.Adopt, Addresses: b.Addresses}, nil
}

// EnsureParent notes a parent.
func (f *Fake) EnsureParent(d plan.Direct, try bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("parent"); err != nil {
		return err
	}
	f.Bridges[d.Parent] = plan.Bridge{Name: d.Parent}
	return nil
}

// Replug notes the link's bridge.
func (f *Fake) Replug(p plan.Plug) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Plugs[p.Host] = p
	return f.step("replug")
}

// RemoveInside does nothing: direct links are not noted.
func (f *Fake) RemoveInside(*os.File, string) error { return f.step("remove inside") }

// HasInside says yes: direct links are not noted.
func (f *Fake) HasInside(*os.File, string) (bool, error) { return true, nil }

// RepairInside finds nothing to repair.
func (f *Fake) RepairInside(plan.Plug, *os.File) (bool, error) { return false, nil }

// Adopt notes nothing.
func (f *Fake) Adopt(string, plan.Plug, *os.File) error { return f.step("adopt") }

// Expel notes nothing.
func (f *Fake) Expel(*os.File, string, string) error { return f.step("expel") }

// Plug notes the link.
func (f *Fake) Plug(p plan.Plug, ns *os.File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("plug"); err != nil {
		return err
	}
	if p.Direct.Kind != "" {
		return nil
	}
	if _, ok := f.Bridges[p.Bridge]; !ok {
		return fmt.Errorf("no bridge %s", p.Bridge)
	}
	if _, ok := f.Plugs[p.Host]; ok {
		return fmt.Errorf("link %s is there", p.Host)
	}
	f.Plugs[p.Host] = p
	return nil
}

// RemoveLink forgets a bridge or link.
func (f *Fake) RemoveLink(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("remove link"); err != nil {
		return err
	}
	delete(f.Bridges, name)
	delete(f.Plugs, name)
	return nil
}

// Links lists what was noted.
func (f *Fake) Links(prefix string) ([]string, map[string]plan.Port, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	plugs := map[string]plan.Port{}
	for n, p := range f.Plugs {
		if strings.HasPrefix(n, prefix) {
			plugs[n] = p.Port
		}
	}
	return slices.Sorted(maps.Keys(f.Bridges)), plugs, nil
}

// SetGateways notes a link's default routes.
func (f *Fake) SetGateways(_ *os.File, _ string, _ []netip.Addr) error { return f.step("gateways") }

// ListenNames listens on free ports of the host's loopback.
func (f *Fake) ListenNames(*os.File, bool) (*net.UDPConn, *net.TCPListener, error) {
	if err := f.step("names"); err != nil {
		return nil, nil, err
	}
	lo := net.IPv4(127, 0, 0, 1)
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: lo})
	if err != nil {
		return nil, nil, err
	}
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: lo})
	if err != nil {
		udp.Close()
	}
	return udp, tcp, err
}

// Dial dials from the host.
func (f *Fake) Dial(ctx context.Context, _ *os.File, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// Uplink is what the test set.
func (f *Fake) Uplink(func(string) bool) (Uplink, error) { return f.Up, nil }

// EnableForwarding notes that the host forwards.
func (f *Fake) EnableForwarding(v6 bool) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := map[bool]int{true: 1}[v6]
	had := f.Forward[i]
	f.Forward[i] = true
	return !had, f.step("forwarding")
}

// DisableForwarding notes that the host does not forward IPv4 any more.
func (f *Fake) DisableForwarding() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Forward[0] = false
	return f.step("no forwarding")
}

// Rules is what was applied.
func (f *Fake) Rules() (plan.Rules, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	have := plan.Rules{}
	for _, set := range f.Table {
		for _, e := range set {
			have.Add(e)
		}
	}
	return have, f.Table != nil, nil
}

// ApplyRules changes the table, all or nothing.
func (f *Fake) ApplyRules(del, add []plan.Elem) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("rules"); err != nil {
		return err
	}
	if f.Table == nil && len(del)+len(add) > 0 {
		return fmt.Errorf("%w: no table", ErrRulesGone)
	}
	for _, e := range del {
		if f.Table[e.Set][e.Key+e.KeyEnd] != e {
			return fmt.Errorf("%w: no element in %s", ErrRulesGone, e.Set)
		}
	}
	f.Table.Remove(del...)
	f.Table.Add(add...)
	return nil
}

// RebuildRules replaces the table.
func (f *Fake) RebuildRules(elems []plan.Elem) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("rebuild"); err != nil {
		return err
	}
	f.Table = plan.Rules{}
	f.Table.Add(elems...)
	return nil
}

// RemoveRules removes the table.
func (f *Fake) RemoveRules() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Table = nil
	return nil
}

// ForgetUDP does nothing.
func (f *Fake) ForgetUDP([]plan.Forward) error { return f.step("forget") }
