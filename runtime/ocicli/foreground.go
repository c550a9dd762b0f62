package ocicli

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/runtime/container"
)

// foreground passes signals and the terminal through to a process while the command waits for it.
type foreground struct {
	signals chan os.Signal
	restore func()
	copied  chan struct{}
}

// passed are the signals that people and service managers send. Taking over each costs 20 µs, so it is not done for all
// 64, and beside the start of the container.
var passed = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT,
	unix.SIGTSTP, unix.SIGALRM}

func watchSignals() *foreground {
	w := &foreground{signals: make(chan os.Signal, 128)}
	go signal.Notify(w.signals, passed...)
	return w
}

// stop gives the terminal back. The signals stay taken: the command is about to exit.
func (w *foreground) stop() {
	if w.restore != nil {
		w.restore()
	}
}

// wait returns the process's exit code when it has ended and its output is copied.
func (w *foreground) wait(p *container.Process) (int, error) {
	if p.Console != nil {
		if err := w.attach(p.Console); err != nil {
			return 1, err
		}
	}
	type end struct {
		status unix.WaitStatus
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		status, err := p.Wait()
		ended <- end{status, err}
	}()
	for {
		select {
		case e := <-ended:
			if w.copied != nil {
				<-w.copied
			}
			if e.err != nil {
				return 1, e.err
			}
			return exitCode(e.status), nil
		case s := <-w.signals:
			w.pass(p, s.(unix.Signal))
		}
	}
}

func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func (w *foreground) pass(p *container.Process, s unix.Signal) {
	switch s {
	case unix.SIGWINCH:
		if p.Console != nil {
			copySize(p.Console)
		}
	default:
		unix.PidfdSendSignal(int(p.PidFD.Fd()), s, nil, 0)
	}
}

func copySize(console *os.File) {
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(console.Fd()), unix.TIOCSWINSZ, size)
	}
}

// attach copies between the container's terminal and this one, which is made raw meanwhile.
func (w *foreground) attach(console *os.File) error {
	if old, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		raw := *old
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Oflag &^= unix.OPOST
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(0, unix.TCSETS, &raw); err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		w.restore = func() { unix.IoctlSetTermios(0, unix.TCSETS, old) }
		copySize(console)
	}
	w.copied = make(chan struct{})
	go io.Copy(console, os.Stdin)
	go func() {
		io.Copy(os.Stdout, console) // ends with EIO when the last process has closed the terminal
		close(w.copied)
	}()
	return nil
}
