package namespaces

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Between the runtime and the child goes one stream socket. Every message is a header of three little-endian numbers,
// kind (4 bytes), arg (4), value (8); kinds from KindFramed on are followed by value bytes of content. Descriptors
// travel with the header. The forked child, which is not yet a Go program, sends the first kinds; what comes after is
// between runtime/initproc and runtime/container:
//
//	child → runtime  kindFailed(step, errno)   the fork could not be completed
//	child → runtime  kindPid(pid)              two-step fork: the final child's pid, which waits for one byte
//	child → runtime  kindMapIDs                write my id mappings, then send one byte
type header struct {
	Kind  uint32
	Arg   uint32
	Value uint64
}

const headerSize = 16

const (
	kindFailed = 1
	kindPid    = 2
	kindMapIDs = 3
	// KindFramed is the first kind for users of Send and Receive.
	KindFramed = 16
)

// MaxFrame bounds the content of a message.
const MaxFrame = 64 << 20

// Message is one framed message with at most a few descriptors.
type Message struct {
	Kind    uint32
	Arg     uint32
	Content []byte
	Files   []int
}

// Send writes a message to the socket fd.
func Send(fd int, m Message) error {
	buf := make([]byte, headerSize, headerSize+len(m.Content))
	binary.LittleEndian.PutUint32(buf, m.Kind)
	binary.LittleEndian.PutUint32(buf[4:], m.Arg)
	binary.LittleEndian.PutUint64(buf[8:], uint64(len(m.Content)))
	buf = append(buf, m.Content...)
	if len(m.Files) > 0 {
		n, err := sendmsg(fd, buf, unix.UnixRights(m.Files...))
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	for len(buf) > 0 {
		n, err := sendmsg(fd, buf, nil)
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

func sendmsg(fd int, b, oob []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(fd, b, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// Receive reads one message; io.EOF when the other side is closed between messages. It blocks its thread.
func Receive(fd int) (Message, error) {
	h, files, err := receiveHeader(fd)
	m := Message{Kind: h.Kind, Arg: h.Arg, Files: files}
	if err != nil {
		return m, err
	}
	if h.Kind < KindFramed {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], h.Value)
		m.Content = b[:]
		return m, nil
	}
	if h.Value > MaxFrame {
		return m, fmt.Errorf("message of %d bytes is more than %d", h.Value, MaxFrame)
	}
	m.Content = make([]byte, h.Value)
	if err := readFull(fd, m.Content); err != nil {
		return m, fmt.Errorf("message cut short: %w", err)
	}
	return m, nil
}

func receiveHeader(fd int) (header, []int, error) {
	var buf [headerSize]byte
	oob := make([]byte, unix.CmsgSpace(4*16))
	n, oobn, err := recvmsg(fd, buf[:], oob)
	if err != nil {
		return header{}, nil, err
	}
	var files []int
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return header{}, nil, err
		}
		for i := range msgs {
			fds, err := unix.ParseUnixRights(&msgs[i])
			if err == nil {
				files = append(files, fds...)
			}
		}
	}
	if n == 0 {
		return header{}, files, io.EOF
	}
	if err := readFull(fd, buf[n:]); err != nil {
		return header{}, files, fmt.Errorf("message cut short: %w", err)
	}
	return header{binary.LittleEndian.Uint32(buf[:]), binary.LittleEndian.Uint32(buf[4:]), binary.LittleEndian.Uint64(buf[8:])}, files, nil
}

func recvmsg(fd int, b, oob []byte) (int, int, error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.ECONNRESET {
			return 0, 0, nil
		}
		if err != unix.EINTR {
			return n, oobn, err
		}
	}
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			b = b[n:]
		}
	}
	return nil
}

// SocketPair makes the stream both sides talk over; both ends are close-on-exec.
func SocketPair() (parent, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair to the container's init: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "init-parent"), os.NewFile(uintptr(fds[1]), "init-child"), nil
}
