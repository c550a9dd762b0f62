package logs

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// watch tells by inotify that a log file, or the set of its files, changed. Several changes are told once.
type watch struct {
	f       *os.File
	changed chan struct{}
}

func newWatch(path string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		if errors.Is(err, unix.EMFILE) {
			return nil, errs.New(errs.Exhausted, "follow the log: %w: raise the sysctl fs.inotify.max_user_instances", err)
		}
		return nil, errs.Wrap(err, "follow the log")
	}
	dir := filepath.Dir(path)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE_SELF); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENOENT) {
			return nil, errs.New(errs.NotFound, "there is no log: its directory %s does not exist", dir)
		}
		return nil, errs.Wrap(err, "follow the log in %s", dir)
	}
	w := &watch{f: os.NewFile(uintptr(fd), "inotify"), changed: make(chan struct{}, 1)}
	go w.run()
	return w, nil
}

func (w *watch) run() {
	buf := make([]byte, 4096)
	for {
		if _, err := w.f.Read(buf); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *watch) close() { w.f.Close() }
