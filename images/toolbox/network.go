package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func networkTools() map[string]tool {
	return map[string]tool{"ip": ip, "ping": ping, "nslookup": nslookup, "wget": wget, "curl": curl, "nc": nc, "ss": ss, "netstat": ss}
}

func localAddresses() []string {
	var out []string
	list, _ := net.InterfaceAddrs()
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			out = append(out, n.IP.String())
		}
	}
	return out
}

func nslookup(c *call) error {
	if len(c.args) == 0 {
		return errors.New("want NAME [SERVER]")
	}
	r := net.DefaultResolver
	if len(c.args) > 1 {
		server := c.args[1]
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(server, "53")
		}
		r = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server)
		}}
		fmt.Fprintf(c.out, "Server: %s\n", server)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if a, err := netip.ParseAddr(c.args[0]); err == nil {
		list, err := r.LookupAddr(ctx, a.String())
		for _, n := range list {
			fmt.Fprintf(c.out, "%s\tname = %s\n", a, n)
		}
		return err
	}
	list, err := r.LookupNetIP(ctx, "ip", c.args[0])
	if err != nil {
		return err
	}
	for _, a := range list {
		fmt.Fprintf(c.out, "Name: %s\nAddress: %s\n", c.args[0], a.Unmap())
	}
	return nil
}

// fetch is what wget and curl have in common.
func fetch(target string, post *string, headers []string, limit time.Duration, method string) (*http.Response, error) {
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	var body io.Reader
	if post != nil {
		body = strings.NewReader(*post)
		if method == "" {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequest(method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "toolbox")
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ":")
		req.Header.Set(k, strings.TrimSpace(v))
		if strings.EqualFold(k, "host") {
			req.Host = strings.TrimSpace(v)
		}
	}
	return (&http.Client{Timeout: limit}).Do(req)
}

// wget: wget [-q] [-O FILE] [-T SECONDS] [--post-data=TEXT] [--header=H] URL
func wget(c *call) error {
	var post *string
	var headers, args []string
	for _, a := range c.args {
		switch {
		case strings.HasPrefix(a, "--post-data="):
			text := strings.TrimPrefix(a, "--post-data=")
			post = &text
		case strings.HasPrefix(a, "--header="):
			headers = append(headers, strings.TrimPrefix(a, "--header="))
		case a == "--spider":
			args = append(args, "-O/dev/null")
		case strings.HasPrefix(a, "--timeout="):
			args = append(args, "-T"+strings.TrimPrefix(a, "--timeout="))
		default:
			args = append(args, a)
		}
	}
	c.args = args
	flags, rest, err := c.options("qO:T:S", 0)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errors.New("want one URL")
	}
	seconds, err := count(flags, 'T', 900)
	if err != nil {
		return err
	}
	answer, err := fetch(rest[0], post, headers, time.Duration(seconds)*time.Second, "")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 {
		return fmt.Errorf("server returned error: %s %s", answer.Proto, answer.Status)
	}
	name := flags['O']
	if name == "" {
		if name = path.Base(answer.Request.URL.Path); name == "/" || name == "." {
			name = "index.html"
		}
	}
	if name == "-" {
		_, err = io.Copy(c.out, answer.Body)
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, answer.Body)
	if flags['q'] == "" {
		fmt.Fprintf(c.err, "'%s' saved, %d bytes\n", name, n)
	}
	return err
}

// curl: curl [-s] [-f] [-i] [-I] [-k] [-o FILE] [-X METHOD] [-d DATA] [-H HEADER] [-m SECONDS] URL
func curl(c *call) error {
	var headers []string
	args := c.args[:0:0]
	for i := 0; i < len(c.args); i++ { // -H may come several times
		if c.args[i] == "-H" && i+1 < len(c.args) {
			i++
			headers = append(headers, c.args[i])
			continue
		}
		args = append(args, c.args[i])
	}
	c.args = args
	flags, rest, err := c.options("sSfiIo:X:d:m:Lw:", 0)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errors.New("want one URL")
	}
	var post *string
	if d, ok := flags['d']; ok {
		post = &d
		headers = append([]string{"Content-Type: application/x-www-form-urlencoded"}, headers...)
	}
	method := flags['X']
	if flags['I'] != "" {
		method = http.MethodHead
	}
	seconds, err := count(flags, 'm', 0)
	if err != nil {
		return err
	}
	answer, err := fetch(rest[0], post, headers, time.Duration(seconds)*time.Second, method)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		fmt.Fprintln(c.err, "curl:", err)
		return status(7)
	}
	defer answer.Body.Close()
	if flags['f'] != "" && answer.StatusCode >= 400 {
		fmt.Fprintln(c.err, "curl: the server answered", answer.Status)
		return status(22)
	}
	out := c.out
	if name := flags['o']; name != "" {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	if flags['i'] != "" || flags['I'] != "" {
		fmt.Fprintf(out, "%s %s\r\n", answer.Proto, answer.Status)
		answer.Header.Write(out)
		io.WriteString(out, "\r\n")
	}
	_, err = io.Copy(out, answer.Body)
	if w := flags['w']; w != "" {
		io.WriteString(c.out, strings.NewReplacer("%{http_code}", strconv.Itoa(answer.StatusCode), `\n`, "\n").Replace(w))
	}
	return err
}

// nc: nc [-u] [-z] [-w SECONDS] HOST PORT, or nc -l [-u] [-p] PORT, or with -U PATH a unix socket.
func nc(c *call) error {
	flags, rest, err := c.options("luzvw:p:Un", 0)
	if err != nil {
		return err
	}
	network := "tcp"
	if flags['u'] != "" {
		network = "udp"
	}
	if flags['p'] != "" {
		rest = append(rest, flags['p'])
	}
	target := strings.Join(rest, ":")
	switch {
	case flags['U'] != "":
		network = "unix"
	case flags['l'] != "" && len(rest) == 1:
		target = ":" + rest[0]
	case len(rest) == 2:
		target = net.JoinHostPort(rest[0], rest[1])
	default:
		return errors.New("want HOST PORT, or -l PORT")
	}
	seconds, err := count(flags, 'w', 0)
	if err != nil {
		return err
	}
	if flags['l'] != "" && network == "udp" {
		return ncUDP(c, target)
	}
	var conn net.Conn
	if flags['l'] != "" {
		l, err := net.Listen(network, target)
		if err != nil {
			return err
		}
		conn, err = l.Accept()
		l.Close()
		if err != nil {
			return err
		}
	} else if conn, err = net.DialTimeout(network, target, time.Duration(seconds)*time.Second); err != nil {
		return err
	}
	defer conn.Close()
	if flags['v'] != "" || flags['z'] != "" {
		fmt.Fprintf(c.err, "connected: %s - %s\n", conn.LocalAddr(), conn.RemoteAddr())
	}
	if flags['z'] != "" {
		return nil
	}
	go func() {
		io.Copy(conn, c.in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}()
	_, err = io.Copy(c.out, conn)
	return err
}

func ncUDP(c *call, target string) error {
	l, err := net.ListenPacket("udp", target)
	if err != nil {
		return err
	}
	defer l.Close()
	buf := make([]byte, 65536)
	for {
		n, _, err := l.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := c.out.Write(buf[:n]); err != nil {
			return err
		}
	}
}

var tcpStates = []string{"", "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSE", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "NEW"}

// ss lists sockets: -t TCP, -u UDP, -l those that listen, -a all; numbers are always numbers.
func ss(c *call) error {
	flags, _, err := c.options("tulanpHr", 0)
	if err != nil {
		return err
	}
	both := flags['t'] == "" && flags['u'] == ""
	fmt.Fprintf(c.out, "%-5s %-11s %-45s %s\n", "Netid", "State", "Local", "Peer")
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		if !both && (flags['t'] == "" && proto[0] == 't' || flags['u'] == "" && proto[0] == 'u') {
			continue
		}
		f, err := os.Open("/proc/net/" + proto)
		if err != nil {
			continue
		}
		s := bufio.NewScanner(f)
		for s.Scan() {
			col := strings.Fields(s.Text())
			if len(col) < 4 || col[0] == "sl" {
				continue
			}
			state, _ := strconv.ParseInt(col[3], 16, 32)
			listening := state == 10 || proto[0] == 'u' && state == 7
			if flags['a'] == "" && listening != (flags['l'] != "") || state < 0 || int(state) >= len(tcpStates) {
				continue
			}
			fmt.Fprintf(c.out, "%-5s %-11s %-45s %s\n", proto[:3], tcpStates[state], socket(col[1]), socket(col[2]))
		}
		f.Close()
	}
	return nil
}

// socket reads "0100007F:0050" of /proc/net: words in the machine's byte order.
func socket(s string) string {
	addr, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	if err != nil {
		return s
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, _ := netip.AddrFromSlice(raw)
	n, _ := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)).String()
}

// ping sends ICMP echoes by the kernel's ping socket, or a raw one where that is not allowed.
func ping(c *call) error {
	flags, rest, err := c.options("46c:i:W:w:qn", 0)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errors.New("want one HOST")
	}
	n, err := count(flags, 'c', -1)
	if err != nil {
		return err
	}
	network := "ip"
	if flags['4'] != "" {
		network = "ip4"
	} else if flags['6'] != "" {
		network = "ip6"
	}
	to, err := net.ResolveIPAddr(network, rest[0])
	if err != nil {
		return err
	}
	wait, err := count(flags, 'W', 1)
	if err != nil {
		return err
	}
	p, err := newPinger(to, time.Duration(max(wait, 1))*time.Second)
	if err != nil {
		return err
	}
	defer unix.Close(p.fd)
	fmt.Fprintf(c.out, "PING %s (%s)\n", rest[0], to)
	sent, got := 0, 0
	for n != 0 {
		start := time.Now()
		sent++
		n--
		took, err := p.echo(uint16(sent))
		switch {
		case err == nil:
			got++
			fmt.Fprintf(c.out, "answer from %s: seq=%d time=%.3f ms\n", to, sent, float64(took.Microseconds())/1000)
		case errors.Is(err, syscall.EAGAIN):
			fmt.Fprintf(c.out, "no answer: seq=%d\n", sent)
		default:
			return err
		}
		if n != 0 {
			time.Sleep(time.Until(start.Add(time.Second)))
		}
	}
	fmt.Fprintf(c.out, "%d sent, %d received, %d%% lost\n", sent, got, (sent-got)*100/max(sent, 1))
	if got == 0 {
		return status(1)
	}
	return nil
}

type pinger struct {
	fd   int
	to   unix.Sockaddr
	v6   bool
	raw  bool
	wait time.Duration
	id   uint16
}

func newPinger(to *net.IPAddr, wait time.Duration) (*pinger, error) {
	p := &pinger{wait: wait, id: uint16(os.Getpid())}
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if v4 := to.IP.To4(); v4 != nil {
		p.to = &unix.SockaddrInet4{Addr: [4]byte(v4)}
	} else {
		family, proto, p.v6 = unix.AF_INET6, unix.IPPROTO_ICMPV6, true
		p.to = &unix.SockaddrInet6{Addr: [16]byte(to.IP.To16())}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		p.raw = true
		if fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto); err != nil {
			return nil, fmt.Errorf("no ping socket (net.ipv4.ping_group_range) and no raw one (NET_RAW): %w", err)
		}
	}
	p.fd = fd
	tv := unix.NsecToTimeval(int64(wait))
	return p, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func (p *pinger) echo(seq uint16) (time.Duration, error) {
	msg := make([]byte, 64)
	msg[0] = 8
	if p.v6 {
		msg[0] = 128
	}
	binary.BigEndian.PutUint16(msg[4:], p.id)
	binary.BigEndian.PutUint16(msg[6:], seq)
	if !p.v6 { // the kernel sums for the sixth version
		var sum uint32
		for i := 0; i < len(msg); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(msg[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(msg[2:], ^uint16(sum+sum>>16))
	}
	start := time.Now()
	if err := unix.Sendto(p.fd, msg, 0, p.to); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 1500)
	for time.Since(start) < p.wait {
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			return 0, err
		}
		b := buf[:n]
		if p.raw && !p.v6 && n > 20 { // a raw socket gives the IP header as well
			b = b[int(b[0]&15)*4:]
		}
		if len(b) >= 8 && (b[0] == 0 || b[0] == 129) && binary.BigEndian.Uint16(b[6:]) == seq && (!p.raw || binary.BigEndian.Uint16(b[4:]) == p.id) {
			return time.Since(start), nil
		}
	}
	return 0, unix.EAGAIN
}
