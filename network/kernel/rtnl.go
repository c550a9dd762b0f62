package kernel

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// rtnl is one rtnetlink socket. A batch of requests goes to the kernel in one system call; the kernel carries them
// out in order and answers each. This is the hot path of a container's start; everything cold uses the netlink library.
type rtnl struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// dialRTNL opens a socket in the network namespace of the calling thread.
func dialRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	// The kernel then does not repeat a refused request in its answer, and explains the refusal in words.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return &rtnl{fd: fd, buf: make([]byte, 16<<10)}, nil
}

func (c *rtnl) close() { unix.Close(c.fd) }

// request is one message of a batch.
type request struct {
	what  string // for the error: "create veth"
	typ   uint16
	flags uint16
	body  []byte
	// tolerate is an errno that counts as success, or 0: EEXIST for what is already there, ENODEV for what is gone.
	tolerate unix.Errno
}

// kernelError is a request that the kernel refused.
type kernelError struct {
	what  string
	errno unix.Errno
	text  string // the kernel's own explanation, when it gave one
}

func (e *kernelError) Error() string {
	if e.text != "" {
		return fmt.Sprintf("%s: %v (%s)", e.what, e.errno, e.text)
	}
	return fmt.Sprintf("%s: %v", e.what, e.errno)
}

func (e *kernelError) Unwrap() error { return e.errno }

var native = binary.NativeEndian

// do sends the requests and waits for all answers. The first refusal is the error; requests after a refused one were
// still carried out, so the caller must be able to take back each.
func (c *rtnl) do(reqs ...request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1
	msg := make([]byte, 0, 1024)
	for _, r := range reqs {
		c.seq++
		msg = r.append(msg, c.seq)
	}
	if err := unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: send to the kernel: %w", reqs[0].what, err)
	}
	var failed error
	for left := len(reqs); left > 0; {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: answer of the kernel: %w", reqs[0].what, err)
		}
		for b := c.buf[:n]; ; {
			m, rest, ok := nextMessage(b)
			if !ok {
				break
			}
			b = rest
			i := int(m.seq - first)
			errno, text, is := m.answer()
			if !is || i < 0 || i >= len(reqs) {
				continue
			}
			left--
			if errno != 0 && errno != reqs[i].tolerate && failed == nil {
				failed = &kernelError{reqs[i].what, errno, text}
			}
		}
	}
	return failed
}

// append appends the message to msg.
func (r request) append(msg []byte, seq uint32) []byte {
	start := len(msg)
	msg = native.AppendUint32(msg, uint32(unix.SizeofNlMsghdr+len(r.body)))
	msg = native.AppendUint16(msg, r.typ)
	msg = native.AppendUint16(msg, r.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	msg = native.AppendUint32(msg, seq)
	msg = native.AppendUint32(msg, 0)
	msg = append(msg, r.body...)
	for (len(msg)-start)%4 != 0 {
		msg = append(msg, 0)
	}
	return msg
}

// message is one from the kernel.
type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte
	whole      []byte
}

// nextMessage takes the first message off what was read.
func nextMessage(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return m, nil, false
	}
	size := native.Uint32(b)
	if size < unix.SizeofNlMsghdr || int(size) > len(b) {
		return m, nil, false
	}
	m = message{typ: native.Uint16(b[4:]), flags: native.Uint16(b[6:]), seq: native.Uint32(b[8:]), body: b[unix.SizeofNlMsghdr:size], whole: b[:size]}
	return m, b[min(len(b), int(size+3)&^3):], true
}

// answer says whether the message is an answer to a request, and gives the refusal, or 0.
func (m message) answer() (errno unix.Errno, text string, is bool) {
	if m.typ != unix.NLMSG_ERROR || len(m.body) < 4 {
		return 0, "", false
	}
	if errno = unix.Errno(-int32(native.Uint32(m.body))); errno != 0 {
		text = extAck(m.whole, m.flags)
	}
	return errno, text, true
}

// extAck finds the kernel's explanation in an error message.
func extAck(msg []byte, flags uint16) string {
	const ackTLVs, capped, attrMsg = 0x200, 0x100, 1 // NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSGERR_ATTR_MSG
	if flags&ackTLVs == 0 {
		return ""
	}
	off := unix.SizeofNlMsghdr + 4 + unix.SizeofNlMsghdr
	if flags&capped == 0 && len(msg) >= 24 {
		off += int(native.Uint32(msg[20:])) - unix.SizeofNlMsghdr
	}
	for off >= 0 && off+4 <= len(msg) {
		l, t := int(native.Uint16(msg[off:])), native.Uint16(msg[off+2:])
		if l < 4 || off+l > len(msg) {
			break
		}
		if t == attrMsg {
			s := msg[off+4 : off+l]
			for len(s) > 0 && s[len(s)-1] == 0 {
				s = s[:len(s)-1]
			}
			return string(s)
		}
		off += (l + 3) &^ 3
	}
	return ""
}

// body builds a message: a fixed header and attributes, which may nest.
type body struct{ b []byte }

func (m *body) attr(typ uint16, data []byte) *body {
	m.b = native.AppendUint16(m.b, uint16(4+len(data)))
	m.b = native.AppendUint16(m.b, typ)
	m.b = append(m.b, data...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
	return m
}

func (m *body) str(typ uint16, s string) *body { return m.attr(typ, append([]byte(s), 0)) }
func (m *body) u8(typ uint16, v uint8) *body   { return m.attr(typ, []byte{v}) }
func (m *body) u32(typ uint16, v uint32) *body { return m.attr(typ, native.AppendUint32(nil, v)) }

// nest adds an attribute whose content f builds.
func (m *body) nest(typ uint16, f func(*body)) *body {
	start := len(m.b)
	m.b = append(m.b, 0, 0, 0, 0)
	f(m)
	native.PutUint16(m.b[start:], uint16(len(m.b)-start))
	native.PutUint16(m.b[start+2:], typ)
	return m
}

// link starts a link message: interface index (0 when named or new), flags to change and their values.
func linkBody(index int32, flags, change uint32) *body {
	b := &body{make([]byte, 0, 256)}
	b.ifinfo(index, flags, change)
	return b
}

func (m *body) ifinfo(index int32, flags, change uint32) {
	m.b = append(m.b, unix.AF_UNSPEC, 0, 0, 0)
	m.b = native.AppendUint32(m.b, uint32(index))
	m.b = native.AppendUint32(m.b, flags)
	m.b = native.AppendUint32(m.b, change)
}
