// Package ipam chooses addresses and subnets. It is pure: a Pool is a value that its owner guards, records and rebuilds;
// nothing here looks at the host, the time or a file.
package ipam

import (
	"math"
	"net/netip"
	"slices"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Pool hands out the addresses of one subnet. An address in use is never handed out. Fresh addresses come first, in
// order; then the one that was released longest ago, so that a peer's stale cache entry rarely meets a new owner.
type Pool struct {
	Subnet  netip.Prefix
	Gateway netip.Addr // invalid when the network has none

	rng      netip.Prefix
	used     map[netip.Addr]string // address → who has it, in words for messages
	released map[netip.Addr]bool   // once used, free now; all of them are in queue
	queue    []netip.Addr          // released ones, oldest first; may hold some that were taken again by name
	next     netip.Addr            // first address that was never looked at; invalid when the range is done
}

// New makes the pool of a validated model.IPPool; without a gateway in it, the first usable address is the gateway
// unless withGateway is false.
func New(p model.IPPool, withGateway bool) (*Pool, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if !p.Subnet.IsValid() {
		return nil, errs.New(errs.Internal, "address pool without a subnet")
	}
	pool := &Pool{Subnet: p.Subnet, rng: p.Range, used: map[netip.Addr]string{}, released: map[netip.Addr]bool{}}
	if !pool.rng.IsValid() {
		pool.rng = p.Subnet
	}
	pool.next = pool.rng.Masked().Addr()
	first, last := p.Subnet.Addr(), lastAddr(p.Subnet)
	switch hostBits := p.Subnet.Addr().BitLen() - p.Subnet.Bits(); {
	case hostBits <= 1: // point to point, or one host: every address is usable
	case first.Is4():
		pool.used[first], pool.used[last] = "the network's own address", "the broadcast address"
	default:
		pool.used[first] = "the routers' anycast address"
	}
	for name, a := range p.AuxAddresses {
		pool.used[a] = "the auxiliary address " + name
	}
	if !withGateway {
		return pool, nil
	}
	pool.Gateway = p.Gateway
	if !pool.Gateway.IsValid() {
		for a := first; p.Subnet.Contains(a); a = a.Next() {
			if pool.used[a] == "" {
				pool.Gateway = a
				break
			}
		}
	}
	if !pool.Gateway.IsValid() {
		return nil, errs.New(errs.Invalid, "subnet %s has no room for a gateway; choose a larger one", p.Subnet)
	}
	pool.used[pool.Gateway] = "the gateway"
	return pool, nil
}

// Take chooses a free address for owner.
func (p *Pool) Take(owner string) (netip.Addr, error) {
	for p.next.IsValid() {
		a := p.next
		if p.next = a.Next(); !p.next.IsValid() || !p.rng.Contains(p.next) {
			p.next = netip.Addr{}
		}
		if p.used[a] == "" && !p.released[a] {
			p.used[a] = owner
			return a, nil
		}
	}
	for len(p.queue) > 0 {
		a := p.queue[0]
		p.queue = p.queue[1:]
		if p.released[a] && p.rng.Contains(a) {
			delete(p.released, a)
			p.used[a] = owner
			return a, nil
		}
	}
	return netip.Addr{}, errs.New(errs.Exhausted,
		"no free address in %s: all %d are in use; remove containers from the network, or make a network with a larger subnet",
		p.rng, len(p.used))
}

// Free says whether Take would find an address.
func (p *Pool) Free() bool {
	for a := p.next; a.IsValid() && p.rng.Contains(a); a = a.Next() {
		if p.used[a] == "" && !p.released[a] {
			return true
		}
	}
	for _, a := range p.queue {
		if p.released[a] && p.rng.Contains(a) {
			return true
		}
	}
	return false
}

// TakeAddr takes a certain address for owner.
func (p *Pool) TakeAddr(a netip.Addr, owner string) error {
	if !p.Subnet.Contains(a) {
		return errs.New(errs.Invalid, "address %s is not in the network's subnet %s", a, p.Subnet)
	}
	if by := p.used[a]; by != "" {
		return errs.New(errs.Conflict, "address %s is in use by %s; choose another in %s, or leave the choice to the engine", a, by, p.Subnet)
	}
	delete(p.released, a)
	p.used[a] = owner
	return nil
}

// Owner says who has an address; empty when it is free.
func (p *Pool) Owner(a netip.Addr) string { return p.used[a] }

// Release gives an address back. Releasing a free address does nothing.
func (p *Pool) Release(a netip.Addr) {
	if p.used[a] == "" || a == p.Gateway {
		return
	}
	delete(p.used, a)
	if !p.released[a] {
		p.released[a] = true
		p.queue = append(p.queue, a)
	}
}

// InUse is the number of addresses that cannot be handed out, reserved ones included.
func (p *Pool) InUse() int { return len(p.used) }

// Left is the number of addresses of the range that Take can still choose; the largest number where there are more.
func (p *Pool) Left() uint64 {
	bits := p.rng.Addr().BitLen() - p.rng.Bits()
	if bits >= 64 {
		return math.MaxUint64
	}
	left := uint64(1) << bits
	for a := range p.used {
		if p.rng.Contains(a) {
			left--
		}
	}
	return left
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Base is a range from which the engine cuts subnets of Size prefix bits when a user names none.
type Base struct {
	Base netip.Prefix
	Size int
}

// DefaultBases are Docker's default address pools.
func DefaultBases() []Base {
	p := netip.MustParsePrefix
	return []Base{{p("172.17.0.0/16"), 16}, {p("172.18.0.0/16"), 16}, {p("172.19.0.0/16"), 16}, {p("172.20.0.0/14"), 16},
		{p("172.24.0.0/14"), 16}, {p("172.28.0.0/14"), 16}, {p("192.168.0.0/16"), 20}}
}

// maxCuts bounds the subnets that are tried in one base: a wide IPv6 base has more than can be counted.
const maxCuts = 1 << 16

// Choose cuts the first subnet that overlaps nothing in taken: the host's routes and addresses, and other networks.
func Choose(bases []Base, v6 bool, taken []netip.Prefix) (netip.Prefix, error) {
	var tried []string
	for _, b := range bases {
		if b.Base.Addr().Is6() != v6 {
			continue
		}
		tried = append(tried, b.Base.String())
		sub := netip.PrefixFrom(b.Base.Masked().Addr(), b.Size)
		for n := 0; n < maxCuts && sub.IsValid() && b.Base.Overlaps(sub); n++ {
			clash := slices.IndexFunc(taken, func(t netip.Prefix) bool { return t.Bits() > 0 && t.Overlaps(sub) })
			if clash < 0 {
				return sub, nil
			}
			jump := sub // continue behind the larger of the two
			if taken[clash].Bits() < sub.Bits() {
				jump = taken[clash].Masked()
			}
			sub = netip.PrefixFrom(lastAddr(jump).Next(), b.Size)
		}
	}
	return netip.Prefix{}, errs.New(errs.Exhausted,
		"every subnet of the default address pools %v overlaps a network or a route of this host; name one with --subnet, or widen default-address-pools", tried)
}
