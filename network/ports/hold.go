// Package ports holds the host's ports that containers publish. A port is really bound for as long as it is published,
// so no other program can take it and a conflict shows at once, with the name of who has it. The traffic itself goes
// through the packet filter and never comes here, except what the filter cannot carry: connections to ::1, to an IPv6
// address of the host for a container without one, and all of them when the daemon may not write rules. Those are
// passed on in this process. One waiting thread serves all ports; nothing polls.
package ports

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Key is one bound socket of the host.
type Key struct {
	Proto model.Proto
	Addr  netip.AddrPort
}

func (k Key) String() string { return fmt.Sprintf("%s/%s", k.Addr, k.Proto) }

// Target is where a held port leads.
type Target struct {
	Owner string // for messages: `container "web"`
	To    netip.AddrPort
	// Sources are who may connect through the relay; empty: everybody. The host itself always may.
	Sources []netip.Prefix
}

func (t Target) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return len(t.Sources) == 0 || a.IsLoopback() || slices.ContainsFunc(t.Sources, func(p netip.Prefix) bool { return p.Contains(a) })
}

type held struct {
	key    Key
	target Target
	fd     int // -1 for protocols of which the host cannot hold a port
	udp    *udpRelay
}

// Holder holds ports. Its zero value is not ready; use New. All methods may be called from many goroutines.
type Holder struct {
	log *slog.Logger

	mu    sync.Mutex
	held  map[Key]*held
	byFD  map[int]*held
	next  uint16 // where the search for a free ephemeral port starts
	epoll int    // 0: not made yet
}

// New makes a holder that holds nothing yet.
func New(log *slog.Logger) *Holder {
	return &Holder{log: log, held: map[Key]*held{}, byFD: map[int]*held{}}
}

// Hold binds one port at all the given addresses, or at none. first 0: any free port; last above first: the first
// free one in the range. It returns the port.
func (h *Holder) Hold(proto model.Proto, addrs []netip.Addr, first, last uint16, targets []Target) (uint16, error) {
	if first != 0 {
		if last < first {
			last = first
		}
		var conflict error
		for p := int(first); p <= int(last); p++ {
			err := h.holdAll(proto, addrs, uint16(p), targets)
			if err == nil {
				return uint16(p), nil
			}
			if !errs.Is(err, errs.Conflict) {
				return 0, err
			}
			conflict = err
		}
		if first != last {
			return 0, errs.New(errs.Conflict, "all ports from %d to %d/%s are in use (the last: %w)", first, last, proto, conflict)
		}
		return 0, conflict
	}
	low, high := ephemeralRange()
	h.mu.Lock()
	if h.next < low || h.next > high {
		h.next = low
	}
	p := h.next
	h.mu.Unlock()
	for range int(high-low) + 1 {
		err := h.holdAll(proto, addrs, p, targets)
		next := p + 1
		if next > high || next < low {
			next = low
		}
		if err == nil {
			h.mu.Lock()
			h.next = next
			h.mu.Unlock()
			return p, nil
		}
		if !errs.Is(err, errs.Conflict) {
			return 0, err
		}
		p = next
	}
	return 0, errs.New(errs.Exhausted, "no free %s port from %d to %d on the host; stop something, or name the port with -p", proto, low, high)
}

func (h *Holder) holdAll(proto model.Proto, addrs []netip.Addr, port uint16, targets []Target) error {
	for i, a := range addrs {
		key := Key{proto, netip.AddrPortFrom(a, port)}
		if err := h.hold(key, targets[i]); err != nil {
			for _, b := range addrs[:i] {
				h.Release(Key{proto, netip.AddrPortFrom(b, port)})
			}
			return err
		}
	}
	return nil
}

func (h *Holder) hold(key Key, target Target) error {
	fd, err := bind(key)
	if errors.Is(err, unix.EADDRINUSE) {
		return h.conflict(key)
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return errs.New(errs.Invalid, "publish port %s: the host has no address %s; leave it out for all addresses, or use one that `ip addr` lists", key, key.Addr.Addr())
	}
	if err != nil {
		return errs.Wrap(err, "publish port %s", key)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if other := h.held[key]; other != nil { // only where the host cannot hold it
		if fd >= 0 {
			unix.Close(fd)
		}
		return errs.New(errs.Conflict, "port %s is already published by %s; choose another with -p or stop it", key, other.target.Owner)
	}
	hd := &held{key: key, target: target, fd: fd}
	if fd >= 0 {
		if err := h.watch(fd); err != nil {
			unix.Close(fd)
			return errs.Wrap(err, "publish port %s", key)
		}
		h.byFD[fd] = hd
	}
	h.held[key] = hd
	return nil
}

// bind opens the socket; -1 when the host has no sockets of the protocol.
func bind(key Key) (int, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if a := key.Addr.Addr(); a.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(key.Addr.Port()), Addr: a.As16()}
	} else {
		sa = &unix.SockaddrInet4{Port: int(key.Addr.Port()), Addr: a.As4()}
	}
	typ, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch key.Proto {
	case model.UDP:
		typ, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case model.SCTP:
		proto = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		if key.Proto == model.SCTP && (err == unix.EPROTONOSUPPORT || err == unix.ESOCKTNOSUPPORT) {
			return -1, nil
		}
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	if family == unix.AF_INET6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if typ == unix.SOCK_STREAM {
		// Connections that an earlier owner of the port left in TIME_WAIT are no conflict; another listener still is.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err = unix.Bind(fd, sa); err == nil && typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Retarget changes where a held port leads.
func (h *Holder) Retarget(key Key, target Target) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hd := h.held[key]; hd != nil {
		hd.target = target
	}
}

// Release lets go of a port. Releasing what is not held does nothing.
func (h *Holder) Release(key Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hd := h.held[key]
	if hd == nil {
		return
	}
	delete(h.held, key)
	if hd.udp != nil {
		hd.udp.close()
	}
	if hd.fd >= 0 {
		delete(h.byFD, hd.fd)
		unix.Close(hd.fd) // leaves the epoll set by itself
	}
}

// Len is the number of sockets held.
func (h *Holder) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.held)
}

// conflict names who has the port.
func (h *Holder) conflict(key Key) error {
	h.mu.Lock()
	for k, hd := range h.held {
		if k.Proto == key.Proto && k.Addr.Port() == key.Addr.Port() && k.Addr.Addr().Is4() == key.Addr.Addr().Is4() &&
			(k.Addr.Addr() == key.Addr.Addr() || k.Addr.Addr().IsUnspecified() || key.Addr.Addr().IsUnspecified()) {
			h.mu.Unlock()
			return errs.New(errs.Conflict, "port %d/%s is already published by %s; choose another with -p or stop it", key.Addr.Port(), key.Proto, hd.target.Owner)
		}
	}
	h.mu.Unlock()
	who := "another program of the host"
	if name, pid := owner(key); pid != 0 {
		who = fmt.Sprintf("%s (pid %d)", name, pid)
	}
	return errs.New(errs.Conflict, "port %d/%s is in use by %s: address already in use; choose another with -p or stop it", key.Addr.Port(), key.Proto, who)
}

func ephemeralRange() (low, high uint16) {
	b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	f := strings.Fields(string(b))
	if len(f) == 2 {
		a, err1 := strconv.ParseUint(f[0], 10, 16)
		z, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil && a < z {
			return uint16(a), uint16(z)
		}
	}
	return 32768, 60999
}
