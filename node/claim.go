package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/node/config"
)

// claim takes the pid file and both roots for this process, so that no second daemon works in them. The kernel lets go
// of the locks when the process ends, however it ends; the files stay open until then. prepare makes the exec root ready
// under the locks of the others.
func claim(d config.Daemon, prepare func(execRoot string) error) (release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			f.Close()
		}
		if d.Pidfile != "" {
			os.Remove(d.Pidfile)
		}
	}
	for _, c := range []struct{ path, flag string }{
		{d.Pidfile, "--pidfile"}, {filepath.Join(d.DataRoot, "shoald.lock"), "--data-root"}, {filepath.Join(d.ExecRoot, "shoald.lock"), "--exec-root"},
	} {
		if c.path == "" {
			continue
		}
		if c.flag == "--exec-root" {
			err = prepare(d.ExecRoot)
		}
		var f *os.File
		if err == nil {
			f, err = lock(c.path, c.flag)
		}
		if errors.As(err, new(*os.PathError)) {
			err = errs.New(errs.Unavailable, "%s: %w; the daemon must be able to make directories and files there: make it writable, or choose another place", c.flag, err)
		}
		if err != nil {
			for _, f := range held {
				f.Close()
			}
			return nil, err
		}
		held = append(held, f)
	}
	return release, nil
}

func lock(path, flag string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ := os.ReadFile(path)
		f.Close()
		return nil, errs.New(errs.Conflict, "a daemon runs already (pid %s holds %s); stop it, or start this one with its own %s and its own --pidfile, --data-root, --exec-root, --host and --bridge",
			strings.TrimSpace(string(pid)), path, flag)
	}
	if err == nil {
		err = errors.Join(f.Truncate(0), writePid(f))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func writePid(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}
