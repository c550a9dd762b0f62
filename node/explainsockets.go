package node

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoalhq/shoal/doctor/explain"
	"github.com/shoalhq/shoal/model"
)

// listeners reads the sockets that wait for somebody from the tables of one network namespace, /proc/PID/net.
func listeners(dir string) (out []explain.Listener, ok bool) {
	for _, t := range tables(dir) {
		for _, s := range t {
			out = append(out, s.Listener)
		}
		ok = true
	}
	return out, ok
}

type procSocket struct {
	explain.Listener
	inode string
}

// tables reads those of tcp, tcp6, udp and udp6 that are there.
func tables(dir string) (out [][]procSocket) {
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		out = append(out, parseSockets(f, model.Proto(strings.TrimSuffix(name, "6"))))
		f.Close()
	}
	return out
}

// parseSockets reads a table of /proc/net, described in proc_net_tcp.rst of the kernel: the local address in the second
// column, in words of the machine's byte order, the state in the fourth, the inode in the tenth.
func parseSockets(r io.Reader, proto model.Proto) (out []procSocket) {
	const listening, unconnected = "0A", "07"
	lines := bufio.NewScanner(r)
	lines.Scan() // headings
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || proto == "tcp" && f[3] != listening || proto == "udp" && f[3] != unconnected {
			continue
		}
		host, port, _ := strings.Cut(f[1], ":")
		raw, err := hex.DecodeString(host)
		n, perr := strconv.ParseUint(port, 16, 16)
		if err != nil || perr != nil || len(raw) != 4 && len(raw) != 16 {
			continue
		}
		for i := 0; i < len(raw); i += 4 {
			binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
		}
		addr, _ := netip.AddrFromSlice(raw)
		out = append(out, procSocket{explain.Listener{Proto: proto, Addr: addr.Unmap(), Port: uint16(n)}, f[9]})
	}
	return out
}

// holders finds who listens on a port of this machine.
func holders(port uint16, proto model.Proto) (out []explain.Holder, ok bool) {
	byInode := map[string]explain.Listener{}
	for _, t := range tables("/proc/self/net") {
		ok = true
		for _, s := range t {
			if s.Port == port && s.Proto == proto {
				byInode[s.inode] = s.Listener
			}
		}
	}
	if len(byInode) == 0 {
		return nil, ok
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode, is := strings.CutPrefix(target, "socket:[")
		l, held := byInode[strings.TrimSuffix(inode, "]")]
		if !is || !held {
			continue
		}
		delete(byInode, strings.TrimSuffix(inode, "]"))
		dir := filepath.Dir(filepath.Dir(fd))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		out = append(out, explain.Holder{Listener: l, Pid: pid, Name: strings.TrimSpace(string(name))})
	}
	for _, l := range byInode { // of a process that cannot be seen
		out = append(out, explain.Holder{Listener: l})
	}
	return out, ok
}
