package supervise

import (
	"bytes"
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/container"
	"github.com/shoalhq/shoal/runtime/spec"
)

// wait is a supervisor that was started ahead of need: it does what is the same for every container and waits for its
// directory. When the starter goes away it ends. The argument is padded with spaces to the length that a directory has.
func wait(argument string, pick func(*spec.SupervisorConfig) (Runner, error)) int {
	unix.CloseOnExec(handshakeFD)
	quiet()
	container.Warm()
	dir, waits, err := receiveDir()
	if errors.Is(err, io.EOF) {
		return 0
	}
	if err != nil {
		return complain(err)
	}
	show(argument, dir)
	return superviseIn(dir, waits, pick)
}

// show puts the directory where process lists have the argument: the string is the memory that the kernel reads for
// them (see goargs in the Go runtime), so it is written in place.
func show(argument, dir string) {
	if len(argument) == len(dir) {
		copy(unsafe.Slice(unsafe.StringData(argument), len(argument)), dir)
	}
}

// receiveDir reads the directory, and says whether the namespaces are still to come. If they are there already they come with
// the last bytes.
func receiveDir() (dir string, waits bool, err error) {
	var got []byte
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(2*4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(handshakeFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return "", false, err
		case n == 0:
			return "", false, io.EOF
		}
		if oobn > 0 {
			if err := takeNamespaces(oob[:oobn]); err != nil {
				return "", false, err
			}
		}
		got = append(got, buf[:n]...)
		end := bytes.IndexFunc(got, func(r rune) bool { return r == rune(spec.DirEnd) || r == rune(spec.DirEndSpaces) })
		if end < 0 {
			continue
		}
		if got[0] != '/' {
			return "", false, errs.New(errs.Invalid, "the starter sent no directory: %q", got)
		}
		return string(got[:end]), got[end] == spec.DirEndSpaces && end == len(got)-1, nil
	}
}

// receiveSpaces waits for the namespaces and puts them where inherited ones would be.
func receiveSpaces(hand *os.File) error {
	raw, err := hand.SyscallConn()
	if err != nil {
		return err
	}
	var n, oobn int
	var rerr error
	oob := make([]byte, unix.CmsgSpace(2*4))
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, rerr = unix.Recvmsg(int(fd), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return err
	case rerr != nil:
		return errs.Wrap(rerr, "receive the container's namespaces")
	case n == 0:
		return errs.New(errs.Unavailable, "the starter went away before it sent the container's namespaces")
	}
	return takeNamespaces(oob[:oobn])
}

func takeNamespaces(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		for i, fd := range fds {
			if err := unix.Dup3(fd, handshakeFD+1+i, unix.O_CLOEXEC); err != nil {
				return err
			}
			unix.Close(fd)
		}
	}
	return nil
}
