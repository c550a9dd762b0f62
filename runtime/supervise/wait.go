package supervise

import (
	"bytes"
	"errors"
	"io"
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
	dir, err := receiveDir()
	if errors.Is(err, io.EOF) {
		return 0
	}
	if err != nil {
		return complain(err)
	}
	show(argument, dir)
	return supervise(dir, pick)
}

// show puts the directory where process lists have the argument: the string is the memory that the kernel reads for
// them (see goargs in the Go runtime), so it is written in place.
func show(argument, dir string) {
	if len(argument) == len(dir) {
		copy(unsafe.Slice(unsafe.StringData(argument), len(argument)), dir)
	}
}

// receiveDir reads the message of task's sendDir; namespaces that come with it go where
// inherited ones would be.
func receiveDir() (string, error) {
	var dir []byte
	buf, oob := make([]byte, 4096+1), make([]byte, unix.CmsgSpace(2*4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(handshakeFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return "", err
		case n == 0:
			return "", io.EOF
		}
		if oobn > 0 {
			if err := takeNamespaces(oob[:oobn]); err != nil {
				return "", err
			}
		}
		if dir = append(dir, buf[:n]...); dir[len(dir)-1] == 0 {
			break
		}
	}
	if dir[0] != '/' || bytes.IndexByte(dir, 0) != len(dir)-1 {
		return "", errs.New(errs.Invalid, "the starter sent no directory: %q", dir)
	}
	return string(dir[:len(dir)-1]), nil
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
