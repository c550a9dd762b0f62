// Package dns is the name server inside a container's network namespace: it answers for the containers that share a
// network with it, out of an index that the manager keeps current, and passes everything else on. It opens no socket
// itself and holds no record; it sleeps until a query comes.
package dns

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Source knows the names that one container may see. Names are lower case without the final dot. All methods may be
// called from many goroutines at any time.
type Source interface {
	// Lookup gives the addresses of a name; known says that the name is ours, also without an address of a family.
	Lookup(name string) (v4, v6 []netip.Addr, known bool)
	// Reverse gives the name of an address; ours says that the address is in a network of the container.
	Reverse(a netip.Addr) (name string, ours bool)
	// Upstreams are the servers to pass other queries on to, best first.
	Upstreams() []Upstream
	// Dial opens a connection to an upstream where it can be reached from.
	Dial(ctx context.Context, network string, u Upstream) (net.Conn, error)
}

// Upstream is a name server of the outside.
type Upstream struct {
	Addr netip.AddrPort
	Host bool // only the host can reach it
}

const (
	ttl            = 600 // seconds, as Docker's; the names of a container change only with its networks
	askTimeout     = 4 * time.Second
	tcpIdle        = 20 * time.Second
	maxForward     = 1024 // queries of one container that wait for an upstream at a time
	maxConnections = 64   // TCP connections of one container at a time
)

// Server answers on the sockets it was given.
type Server struct {
	src     Source
	log     *slog.Logger
	udp     *net.UDPConn
	tcp     *net.TCPListener
	forward chan struct{}
	streams chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	lost    func(error)
}

// Serve answers on udp and tcp, which it takes over, until Close. lost is called, once, when the kernel does not let it go
// on: somebody with the right to in the container's namespace has destroyed a socket (`ss -K`). It may not call Close.
func Serve(udp *net.UDPConn, tcp *net.TCPListener, src Source, log *slog.Logger, lost func(error)) *Server {
	s := &Server{src: src, log: log, lost: onlyOnce(lost), udp: udp, tcp: tcp, forward: make(chan struct{}, maxForward), streams: make(chan struct{}, maxConnections)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.datagrams)
	s.wg.Go(s.connections)
	return s
}

// Close ends the service and waits for it.
func (s *Server) Close() {
	s.cancel()
	s.udp.Close()
	s.tcp.Close()
	s.wg.Wait()
}

func onlyOnce(f func(error)) func(error) {
	var once sync.Once
	return func(err error) { once.Do(func() { f(err) }) }
}

func (s *Server) datagrams() {
	buf := make([]byte, dns.MaxMsgSize)
	var out []byte
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if s.hopeless(err) {
				return
			}
			continue
		}
		var q dns.Msg
		if q.Unpack(buf[:n]) != nil {
			continue // what is no query gets no answer
		}
		if a := s.answer(&q); a != nil {
			a.Truncate(udpSize(&q))
			if b, err := a.PackBuffer(out[:cap(out)]); err == nil {
				out = b
				s.udp.WriteToUDPAddrPort(b, from)
			}
			continue
		}
		select {
		case s.forward <- struct{}{}:
		default: // too many wait already: the client asks again
			continue
		}
		raw := append([]byte(nil), buf[:n]...)
		s.wg.Go(func() {
			defer func() { <-s.forward }()
			s.udp.WriteToUDPAddrPort(s.ask("udp", raw, &q), from)
		})
	}
}

// hopeless says that a socket will give nothing any more. What passes by itself is waited out, so that a full table of
// files does not keep a processor busy.
func (s *Server) hopeless(err error) bool {
	switch {
	case s.ctx.Err() != nil:
		return true
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		select {
		case <-s.ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
		return false
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPROTO), errors.Is(err, unix.ECONNREFUSED):
		return false
	}
	s.lost(err)
	return true
}

func udpSize(q *dns.Msg) int {
	if o := q.IsEdns0(); o != nil {
		return max(int(o.UDPSize()), dns.MinMsgSize)
	}
	return dns.MinMsgSize
}

func (s *Server) connections() {
	for {
		c, err := s.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if s.hopeless(err) {
				return
			}
			continue
		}
		select {
		case s.streams <- struct{}{}:
		default:
			c.Close()
			continue
		}
		s.wg.Go(func() {
			defer func() { <-s.streams }()
			defer context.AfterFunc(s.ctx, func() { c.Close() })()
			defer c.Close()
			s.stream(&dns.Conn{Conn: c})
		})
	}
}

func (s *Server) stream(c *dns.Conn) {
	for {
		c.SetDeadline(time.Now().Add(tcpIdle))
		raw, err := c.ReadMsgHeader(nil)
		if err != nil {
			return
		}
		var q dns.Msg
		if q.Unpack(raw) != nil {
			return
		}
		out := []byte(nil)
		if a := s.answer(&q); a != nil {
			out, err = a.Pack()
		} else {
			out = s.ask("tcp", raw, &q)
		}
		if err != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// answer answers out of the index; nil means that the query is for others.
func (s *Server) answer(q *dns.Msg) *dns.Msg {
	if q.Response || q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 {
		return fail(q, dns.RcodeFormatError)
	}
	question := q.Question[0]
	if question.Qclass != dns.ClassINET {
		return nil
	}
	if question.Qtype == dns.TypePTR {
		return s.reverse(q, question)
	}
	v4, v6, known := s.src.Lookup(strings.ToLower(strings.TrimSuffix(question.Name, ".")))
	if !known {
		return nil
	}
	a := reply(q)
	switch question.Qtype {
	case dns.TypeA:
		for _, ip := range shuffled(v4) {
			a.Answer = append(a.Answer, &dns.A{Hdr: header(question.Name, dns.TypeA), A: ip.AsSlice()})
		}
	case dns.TypeAAAA:
		for _, ip := range shuffled(v6) {
			a.Answer = append(a.Answer, &dns.AAAA{Hdr: header(question.Name, dns.TypeAAAA), AAAA: ip.AsSlice()})
		}
	}
	return a // of another type, or family: known, but no such record
}

func (s *Server) reverse(q *dns.Msg, question dns.Question) *dns.Msg {
	ip, ok := reverseAddr(question.Name)
	if !ok {
		return nil
	}
	name, ours := s.src.Reverse(ip)
	if !ours {
		return nil
	}
	if name == "" {
		return fail(q, dns.RcodeNameError) // the outside knows nothing of our addresses
	}
	a := reply(q)
	a.Answer = []dns.RR{&dns.PTR{Hdr: header(question.Name, dns.TypePTR), Ptr: dns.Fqdn(name)}}
	return a
}

func header(name string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

func reply(q *dns.Msg) *dns.Msg {
	a := new(dns.Msg)
	a.SetReply(q)
	a.RecursionAvailable = true
	a.Compress = true
	if o := q.IsEdns0(); o != nil {
		a.SetEdns0(uint16(max(int(o.UDPSize()), dns.MinMsgSize)), o.Do())
	}
	return a
}

func fail(q *dns.Msg, code int) *dns.Msg {
	a := reply(q)
	a.Rcode = code
	return a
}

func shuffled(ips []netip.Addr) []netip.Addr {
	if len(ips) < 2 {
		return ips
	}
	out := append([]netip.Addr(nil), ips...)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// ask passes a query on to the upstreams, one after the other, and gives the first answer as it came.
func (s *Server) ask(network string, raw []byte, q *dns.Msg) []byte {
	for _, u := range s.src.Upstreams() {
		out, err := s.askOne(network, raw, q, u)
		if err == nil && len(out) >= 4 && int(out[3]&0x0f) == dns.RcodeServerFailure {
			err = errors.New("server failure")
		}
		if err == nil {
			return out
		}
		s.log.Debug("a name server did not answer", "server", u.Addr, "error", err)
		if s.ctx.Err() != nil {
			break
		}
	}
	out, _ := fail(q, dns.RcodeServerFailure).Pack()
	return out
}

func (s *Server) askOne(network string, raw []byte, q *dns.Msg, u Upstream) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, askTimeout)
	defer cancel()
	conn, err := s.src.Dial(ctx, network, u)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
	if _, err := c.Write(raw); err != nil {
		return nil, err
	}
	for {
		out, err := c.ReadMsgHeader(nil)
		if err != nil {
			return nil, err
		}
		if len(out) >= 12 && out[0] == raw[0] && out[1] == raw[1] && out[2]&0x80 != 0 {
			return out, nil
		}
	}
}

// reverseAddr reads "4.3.2.1.in-addr.arpa." and its IPv6 sister.
func reverseAddr(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		p := strings.Split(rest, ".")
		if len(p) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	p := strings.Split(rest, ".")
	if !ok || len(p) != 32 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 31; i >= 0; i-- {
		b.WriteString(p[i])
		if i%4 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
