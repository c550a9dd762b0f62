package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Monitor tells of changes that others make to our packet filter table. It sleeps in the kernel until somebody changes
// any table.
type Monitor struct {
	f     *os.File
	table string
	hit   func(who string)
}

// settle is how long a burst of changes may last before it is looked at: a firewall's reload is many transactions.
const settle = 50 * time.Millisecond

// Watch calls hit, not more than once at a time, after other processes touched the table.
func Watch(table string, hit func(who string)) (*Monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watch the packet filter: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the packet filter: %w", err)
	}
	m := &Monitor{f: os.NewFile(uintptr(fd), "nftables events"), table: table, hit: hit}
	go m.run()
	return m, nil
}

// Close ends the watch.
func (m *Monitor) Close() error { return m.f.Close() }

func (m *Monitor) run() {
	buf := make([]byte, 64<<10)
	ours := false // the transaction being read touched our table
	who := ""
	for {
		n, err := m.f.Read(buf)
		lost := errors.Is(err, unix.ENOBUFS)
		if err != nil && !lost {
			return
		}
		if lost { // more events than fit: look for ourselves
			who = "somebody"
		}
		for b := buf[:max(n, 0)]; len(b) >= unix.SizeofNlMsghdr+4; {
			size := int(native.Uint32(b))
			if size < unix.SizeofNlMsghdr+4 || size > len(b) {
				break
			}
			typ, body := native.Uint16(b[4:]), b[unix.SizeofNlMsghdr+4:size]
			if typ>>8 == unix.NFNL_SUBSYS_NFTABLES {
				if typ&0xff == unix.NFT_MSG_NEWGEN {
					if pid, name := genAttrs(body); ours && !ownThread(pid) {
						who = fmt.Sprintf("%s (pid %d)", name, pid)
					}
					ours = false
				} else if attrString(body, 1) == m.table { // in every message but NEWGEN, attribute 1 is the table
					ours = true
				}
			}
			b = b[min(len(b), (size+3)&^3):]
		}
		if who == "" {
			continue
		}
		m.f.SetReadDeadline(time.Now().Add(settle))
		if _, err := m.f.Read(buf); err == nil || !os.IsTimeout(err) {
			// More is coming; it is part of the same burst. What it says does not matter: hit looks at everything.
			for err == nil {
				_, err = m.f.Read(buf)
			}
		}
		m.f.SetReadDeadline(time.Time{})
		m.hit(who)
		who, ours = "", false
	}
}

// ownThread says whether a thread is of this process. The kernel names threads, not processes.
func ownThread(tid int) bool {
	_, err := os.Stat("/proc/self/task/" + strconv.Itoa(tid))
	return err == nil
}

// genAttrs reads who made a transaction.
func genAttrs(b []byte) (pid int, name string) {
	for len(b) >= 4 {
		l, t := int(native.Uint16(b)), native.Uint16(b[2:])&0x3fff
		if l < 4 || l > len(b) {
			break
		}
		switch t {
		case 2: // NFTA_GEN_PROC_PID
			if l >= 8 {
				pid = int(binary.BigEndian.Uint32(b[4:]))
			}
		case 3: // NFTA_GEN_PROC_NAME
			name = strings.TrimRight(string(b[4:l]), "\x00")
		}
		b = b[min(len(b), (l+3)&^3):]
	}
	return pid, name
}

func attrString(b []byte, want uint16) string {
	for len(b) >= 4 {
		l, t := int(native.Uint16(b)), native.Uint16(b[2:])&0x3fff
		if l < 4 || l > len(b) {
			break
		}
		if t == want {
			return strings.TrimRight(string(b[4:l]), "\x00")
		}
		b = b[min(len(b), (l+3)&^3):]
	}
	return ""
}
