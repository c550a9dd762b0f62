package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoalhq/shoal/cli/progress"
	"github.com/shoalhq/shoal/lib/errs"
)

// saveTo copies r to the file path, or to standard output when path is "", with progress on standard error. A file
// appears under its name only when it is whole.
func (a *App) saveTo(path, label string, r io.Reader) error {
	s := a.screen(a.Err)
	if path == "" {
		if terminalOf(a.Out) != nil {
			return errs.New(errs.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		_, err := io.Copy(a.Out, r)
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
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	if err != nil {
		return errs.Wrap(err, "write to %s", path)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := io.Copy(tmp, bar.Reader(r)); err != nil {
		return errs.Wrap(err, "write to %s", path)
	}
	if err := tmp.Chmod(0o600); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return errs.Wrap(err, "write to %s", path)
	}
	return os.Rename(tmp.Name(), path)
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
