package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/network/plan"
	"github.com/shoalhq/shoal/network/ports"
)

// Manager is the network room of one daemon. Life: Open (records are read, the kernel is only looked at) → Restore
// (the kernel is made as it should be) → everything else → Close (the kernel stays as it is). All methods may be called
// from many goroutines.
type Manager struct {
	cfg    Config
	k      Kernel
	log    *slog.Logger
	holder *ports.Holder
	facts
	index *nameIndex
	host  *hostConf

	turns
	bg sync.WaitGroup // removals of links that nobody waits for

	mu sync.Mutex // guards what follows; never held while the kernel or the disk works
	tables
}

// turns are what is done by one at a time.
type turns struct {
	ruleMu sync.Mutex // a rebuild of the packet filter
	growMu sync.Mutex // the growth of a network
	linkMu sync.Mutex // an audit of the links
}

// facts are found out by Open and never change.
type facts struct {
	instance  string // tells the links of two daemons of one host apart
	bridgeNF  bool   // the kernel passes bridged packets through the packet filter
	uplinkMTU int
}

// tables are what there is.
type tables struct {
	nets  map[string]*state
	names map[string]string // name → ID
	conts map[string]*attached
	want  plan.Rules
	watch []*kernel.Monitor
	retry bool // an audit is due
	// attaching counts the calls of Attach and Connect that are on their way.
	attaching int
	due       []func() // what waits for the last of them
	// clashes are the ranges of networks for which the host has another route too, as far as told.
	clashes map[string]bool
	found   []Finding // the last ones, for who asks later
}

// state is a network with what is derived from its record.
type state struct {
	model.Network
	opts  options
	pools []*pool
	users map[string]bool // IDs of the containers on it
	gone  bool            // being removed
	fresh bool            // being made: not yet what the audit compares with the kernel

	replay *replay // nil: nobody must be told of it again
}

// attached is a container with its endpoints.
type attached struct {
	id        string
	label     string // for messages: container "web"
	endpoints []*endpoint
	ports     []model.PortBinding // as asked
	bound     []bound
	dns       *resolver
	ns        *os.File      // its network namespace, ours to close
	req       AttachRequest // names and options
	nsid      *int32        // the number by which the host's kernel tells of its namespace; nil: not asked yet
}

type endpoint struct {
	model.Endpoint
	net  *state
	host string // the link's name on the host; empty when it has none
	part *part  // what other programs know of it; nil with our own drivers
}

// instanceFile is in the root directory. Its content never changes, so the addresses derived from it do not either.
type instanceFile struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
}

// Open reads the networks' records and makes the built-in networks' ones when they are missing. Damaged records are set
// aside and logged.
func Open(cfg Config) (*Manager, error) {
	cfg.fill()
	for _, dir := range []string{cfg.Root, cfg.Exec} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, errs.Wrap(err, "directory of the networks")
		}
	}
	m := &Manager{cfg: cfg, k: cfg.Kernel, log: cfg.Log, holder: ports.New(cfg.Log), index: newNameIndex(),
		host:   &hostConf{path: "/etc/resolv.conf"},
		tables: tables{nets: map[string]*state{}, names: map[string]string{}, conts: map[string]*attached{}, want: plan.Rules{}}}
	if err := m.identify(); err != nil {
		return nil, err
	}
	if m.k == nil {
		real, err := kernel.Open(cfg.Bridge.Table, m.instance)
		if err != nil {
			return nil, err
		}
		m.k = real
	}
	if err := m.load(); err != nil {
		return nil, err
	}
	u, err := m.k.Uplink(nil)
	if err != nil {
		return nil, err
	}
	m.bridgeNF, m.uplinkMTU = u.BridgeNF, u.MTU
	if err := m.builtin(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manager) identify() error {
	path := filepath.Join(m.cfg.Root, "instance.json")
	var f instanceFile
	err := atomicfile.ReadJSON(path, &f)
	if err != nil || !ids.Valid(f.ID) {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			m.log.Warn("network identity is damaged; making it again", "file", path, "setAside", path+".damaged", "error", err)
			os.RemoveAll(path + ".damaged")
			os.Rename(path, path+".damaged")
		}
		f = instanceFile{1, identity(m.cfg.Root)}
		if err := atomicfile.WriteJSON(path, f, 0o600, atomicfile.Durable); err != nil {
			return err
		}
	}
	m.instance = f.ID
	return nil
}

// Owner is what bridges that this daemon made are marked with on the host (kernel.OwnerMark).
func (m *Manager) Owner() string { return kernel.OwnerMark + m.instance }

// identity is what a daemon with this directory is called on this machine. It is the same again when the directory was
// lost or emptied, so that the bridges made before are still known as ours.
func identity(root string) string {
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	machine, _ := os.ReadFile("/etc/machine-id")
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", bytes.TrimSpace(machine), root)))
}

// Close stops serving names and lets go of the host's ports. What runs keeps its addresses and published ports.
func (m *Manager) Close() error {
	m.mu.Lock()
	watch := m.watch
	m.watch = nil
	var served []*resolver
	for _, c := range m.conts {
		if c.dns != nil {
			served = append(served, c.dns)
		}
		for _, b := range c.bound {
			for _, key := range b.keys {
				m.holder.Release(key)
			}
		}
	}
	m.mu.Unlock()
	for _, w := range watch {
		w.Close()
	}
	for _, r := range served {
		r.close()
	}
	m.bg.Wait()
	if c, ok := m.k.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

// Namespace makes a network namespace with its loopback up. It lives until the file and the last process in it are gone.
// With ids it belongs to a new user namespace in which these ids are the host's.
func (m *Manager) Namespace(ctx context.Context, ids *model.IDMaps) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.k.Namespace(ids)
}

// Resolve finds a network by name, ID or unique start of an ID, in this order.
func (m *Manager) Resolve(_ context.Context, ref string) (model.Network, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.find(ref)
	if err != nil {
		return model.Network{}, err
	}
	return s.Network, nil
}

// Subnets tells how full the subnets of a network are; nil where another program chooses its addresses.
func (m *Manager) Subnets(networkID string) map[netip.Prefix]model.SubnetUse {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.nets[networkID]
	if s == nil || len(s.pools) == 0 {
		return nil
	}
	out := map[netip.Prefix]model.SubnetUse{}
	for _, p := range s.pools {
		out[p.Subnet] = model.SubnetUse{InUse: uint64(p.InUse()), Free: p.Left()}
	}
	return out
}

// find is Resolve under the lock.
func (m *Manager) find(ref string) (*state, error) {
	if ref == "default" {
		ref = model.NetworkBridge
	}
	if s := m.nets[ref]; s != nil { // an ID in whole means that network, also when another has it as its name
		return s, nil
	}
	if id, ok := m.names[ref]; ok {
		return m.nets[id], nil
	}
	var hit *state
	for id, s := range m.nets {
		if ref != "" && len(ref) < len(id) && id[:len(ref)] == ref {
			if hit != nil {
				return nil, errs.New(errs.Invalid, "network %s: more than one network's ID starts so; give more of it", ref)
			}
			hit = s
		}
	}
	if hit == nil {
		return nil, errs.New(errs.NotFound, "network %s not found; `network ls` lists those there are, `network create` makes one", ref)
	}
	return hit, nil
}

// List gives all networks, unordered copies.
func (m *Manager) List(context.Context) []model.Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]model.Network, 0, len(m.nets))
	for _, s := range m.nets {
		if !s.gone {
			out = append(out, s.Network)
		}
	}
	return out
}

// Endpoints gives the endpoints that are on a network now.
func (m *Manager) Endpoints(_ context.Context, networkID string) []model.Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []model.Endpoint
	if s := m.nets[networkID]; s != nil {
		for id := range s.users {
			if c := m.conts[id]; c != nil {
				for _, e := range c.endpoints {
					if e.net == s {
						out = append(out, e.Endpoint)
					}
				}
			}
		}
	}
	return out
}

// changeRules brings elements into the kernel that are in or out of m.want already. A table that is not as expected is
// made whole.
func (m *Manager) changeRules(del, add []plan.Elem) error {
	if m.cfg.NoRules {
		return nil
	}
	err := m.k.ApplyRules(del, add)
	if errors.Is(err, kernel.ErrRulesGone) {
		m.log.Warn("the packet filter was changed behind our back; writing it again", "error", err)
		return m.rebuildRules()
	}
	return err
}

func (m *Manager) rebuildRules() error {
	m.ruleMu.Lock()
	defer m.ruleMu.Unlock()
	m.mu.Lock()
	all := m.want.All()
	m.mu.Unlock()
	return m.k.RebuildRules(all)
}

// containerLabel names a container in messages.
func containerLabel(name, id string) string {
	if name == "" {
		name = ids.Short(id)
	}
	return fmt.Sprintf("container %q", name)
}
