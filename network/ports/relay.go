package ports

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/model"
)

const (
	dialTimeout = 10 * time.Second
	udpIdle     = 90 * time.Second // a UDP client that was silent this long is forgotten
	udpMax      = 1024             // clients of one port at a time
)

// watch adds a socket to those that the one waiting thread waits for. h.mu is held.
func (h *Holder) watch(fd int) error {
	if h.epoll == 0 {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		h.epoll = ep
		go h.wait(ep)
	}
	return unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// wait serves what arrives at held sockets, for as long as the process lives.
func (h *Holder) wait(ep int) {
	events := make([]unix.EpollEvent, 32)
	for {
		n, err := unix.EpollWait(ep, events, -1)
		if err != nil && err != unix.EINTR {
			h.log.Error("published ports cannot be watched any more", "error", err)
			return
		}
		for _, e := range events[:max(n, 0)] {
			h.serve(int(e.Fd))
		}
	}
}

// serve takes what waits at one socket.
func (h *Holder) serve(fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hd := h.byFD[fd]
	if hd == nil {
		return // released meanwhile
	}
	if hd.key.Proto == model.UDP {
		if hd.udp == nil {
			hd.udp = newUDPRelay(hd.fd, hd.target)
		}
		hd.udp.receive()
		return
	}
	c, from, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err == unix.EMFILE || err == unix.ENFILE {
		// Without a free descriptor the event would come again at once and for ever; look again in a second.
		unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, fd, nil)
		time.AfterFunc(time.Second, func() { h.rewatch(hd) })
	}
	if err != nil {
		return
	}
	if !hd.target.allows(sockAddr(from).Addr()) {
		unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // refused, not ended
		unix.Close(c)
		return
	}
	go relayStream(c, hd.key.Proto, hd.target.To)
}

func (h *Holder) rewatch(hd *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[hd.key] == hd {
		h.watch(hd.fd)
	}
}

// relayStream carries one connection to the container and back until both directions are done.
func relayStream(fd int, proto model.Proto, to netip.AddrPort) {
	f := os.NewFile(uintptr(fd), "published")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return
	}
	client, ok := conn.(*net.TCPConn)
	if !ok || proto != model.TCP {
		conn.Close()
		return
	}
	defer client.Close()
	d := net.Dialer{Timeout: dialTimeout}
	conn, err = d.Dial("tcp", to.String())
	if err != nil {
		client.SetLinger(0) // the client sees a refused connection, as it would without us
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(server, client)
		server.CloseWrite()
	})
	io.Copy(client, server)
	client.CloseWrite()
	wg.Wait()
}

// udpRelay carries datagrams between clients of one held socket and the container. receive runs under the holder's
// lock; answers come on one goroutine for each client.
type udpRelay struct {
	fd     int
	target Target

	mu      sync.Mutex
	clients map[netip.AddrPort]*net.UDPConn
	closed  bool
	buf     []byte
}

func newUDPRelay(fd int, target Target) *udpRelay {
	return &udpRelay{fd: fd, target: target, clients: map[netip.AddrPort]*net.UDPConn{}, buf: make([]byte, 64<<10)}
}

func (r *udpRelay) receive() {
	for range 64 { // then let others have a turn; the rest raises the event again
		n, from, err := unix.Recvfrom(r.fd, r.buf, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		if c := r.client(from); c != nil {
			c.Write(r.buf[:n])
		}
	}
}

func sockAddr(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func (r *udpRelay) client(from unix.Sockaddr) *net.UDPConn {
	key := sockAddr(from)
	if !key.IsValid() || !r.target.allows(key.Addr()) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.clients[key]; c != nil || r.closed || len(r.clients) >= udpMax {
		return c
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.target.To))
	if err != nil {
		return nil
	}
	r.clients[key] = c
	go r.answer(key, from, c)
	return c
}

func (r *udpRelay) answer(key netip.AddrPort, from unix.Sockaddr, c *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		c.SetReadDeadline(time.Now().Add(udpIdle))
		n, err := c.Read(buf)
		if err != nil {
			break
		}
		r.mu.Lock() // the descriptor is not closed while we hold the lock
		if !r.closed {
			unix.Sendto(r.fd, buf[:n], unix.MSG_DONTWAIT, from)
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	delete(r.clients, key)
	r.mu.Unlock()
	c.Close()
}

func (r *udpRelay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, c := range r.clients {
		c.Close()
	}
}
