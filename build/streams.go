package build

import (
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/containerd/console"
	buildexec "github.com/moby/buildkit/executor"
)

// streams are the standard streams of a step: pipes, or a terminal when it asked for one.
type streams struct {
	term   console.Console
	slave  *os.File
	copied chan struct{} // closed when the terminal's output was copied
}

// connect gives the command the process's streams. The runtime passes a terminal on to the container.
func connect(c *exec.Cmd, p buildexec.ProcessInfo) (*streams, error) {
	s := &streams{}
	if !p.Meta.Tty {
		c.Stdout, c.Stderr = orDiscard(p.Stdout), orDiscard(p.Stderr)
		if p.Stdin != nil {
			in, err := c.StdinPipe() // Wait does not wait for a client that does not end its input
			if err != nil {
				return nil, err
			}
			go func() {
				io.Copy(in, p.Stdin)
				in.Close()
			}()
		}
		return s, nil
	}
	term, path, err := console.NewPty()
	if err != nil {
		return nil, err
	}
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		term.Close()
		return nil, err
	}
	s.term, s.slave = term, slave
	c.Stdin, c.Stdout, c.Stderr = s.slave, s.slave, s.slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s.copied = make(chan struct{})
	if p.Stdin != nil {
		go io.Copy(s.term, p.Stdin)
	}
	go func() {
		io.Copy(orDiscard(p.Stdout), s.term)
		close(s.copied)
	}()
	return s, nil
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// started gives up our end of what the command has.
func (s *streams) started() {
	if s.slave != nil {
		s.slave.Close()
	}
}

// serve passes signals and sizes on until the command has ended.
func (s *streams) serve(proc *os.Process, p buildexec.ProcessInfo, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case sig := <-p.Signal:
			proc.Signal(sig)
		case size := <-p.Resize:
			if s.term != nil {
				s.term.Resize(console.WinSize{Height: uint16(size.Rows), Width: uint16(size.Cols)})
				proc.Signal(syscall.SIGWINCH)
			}
		}
	}
}

func (s *streams) close() {
	if s.term == nil {
		return
	}
	s.slave.Close()
	<-s.copied
	s.term.Close()
}
