package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/cli/progress"
	"github.com/shoalhq/shoal/lib/errs"
)

// output is standard output. It remembers the first write that failed, so that what a full disk or a closed pipe swallowed is
// never taken for success, whoever wrote.
type output struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// saveTo copies r to the file path, or to standard output when path is "", with progress on standard error. A file
// appears under its name only when it is whole.
func (a *App) saveTo(path, label string, r io.Reader) error {
	s := a.screen(a.Err)
	if path == "" {
		if terminalOf(a.Out) != nil {
			return errs.New(errs.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		to := a.Out
		if o, ok := to.(*output); ok {
			to = o.Writer // a file of which the kernel can do the copying
		}
		_, err := io.Copy(to, r)
		return err
	}
	bar := progress.NewBytes(s, label, 0, time.Now)
	defer bar.Done()
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		if fi.IsDir() {
			return errs.New(errs.Invalid, "%s is a directory: name a file to write", path)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // a device or pipe
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, bar.Reader(r))
		return err
	}
	tmp, appear, done, err := hiddenFile(path)
	if err != nil {
		return errs.Wrap(err, "write to %s", path)
	}
	defer done()
	if _, err = io.Copy(tmp, bar.Reader(r)); err == nil {
		err = appear()
	}
	return errs.Wrap(err, "write to %s", path)
}

// hiddenFile makes a file that gets the name path when appear is called; done ends the work in any case. It has no name until then, so that nothing is left
// of it when this process is killed; on filesystems that cannot do that (NFS) it has a name of its own beside path.
func hiddenFile(path string) (f *os.File, appear func() error, done func(), err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		f = os.NewFile(uintptr(fd), path)
		return f, func() error {
			name := filepath.Join(dir, fmt.Sprintf(".tmp-%s%d", base, os.Getpid()))
			if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW); err != nil {
				return err
			}
			err := os.Rename(name, path)
			if err != nil {
				os.Remove(name)
			}
			return err
		}, func() { f.Close() }, nil
	}
	if f, err = os.CreateTemp(dir, ".tmp-"+base); err != nil {
		return nil, nil, nil, err
	}
	return f, func() error {
		if err := f.Close(); err != nil {
			return err
		}
		return os.Rename(f.Name(), path)
	}, func() { f.Close(); os.Remove(f.Name()) }, nil
}

// busy shows, from the first second on and on a terminal only, that something is going on; the function it gives ends
// that.
func (a *App) busy(label string) (done func()) {
	s := a.screen(a.Err)
	if s.Width == 0 {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		start := time.Now()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-tick.C:
				shown = true
				fmt.Fprintf(s.Out, "\r\x1b[2K%s ... %ds", label, int(time.Since(start).Seconds()))
			case <-stop:
				if shown {
					fmt.Fprint(s.Out, "\r\x1b[2K")
				}
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-ended })
}
