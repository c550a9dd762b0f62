package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// OOMCount says how many processes of the container the kernel killed for want of memory, since the group was made.
// It is one read: asking once at the container's exit needs no watch.
func (m *Manager) OOMCount() (uint64, error) {
	file, key, err := m.oomFile()
	if err != nil {
		return 0, err
	}
	text, err := readFile(file)
	if err != nil {
		return 0, errs.Wrap(err, "count the out-of-memory kills")
	}
	return keyed(text, key), nil
}

func (m *Manager) oomFile() (file, key string, err error) {
	i := m.host.find("memory")
	if i < 0 || m.dirs[i] == "" {
		return "", "", errs.New(errs.Unsupported, "watch for out-of-memory kills: this host has no memory controller for control groups")
	}
	if m.host.Hierarchies[i].Unified {
		return filepath.Join(m.dirs[i], "memory.events"), "oom_kill", nil
	}
	return filepath.Join(m.dirs[i], "memory.oom_control"), "oom_kill", nil
}

// OOMWatch tells of out-of-memory kills by a file descriptor that becomes readable. Wait for it with epoll or poll,
// then call Read. It also becomes readable when the group is removed.
type OOMWatch struct {
	fd    int
	group *Manager
	v2    bool
}

// WatchOOM starts a watch: an eventfd on v1, inotify on v2.
func (m *Manager) WatchOOM() (*OOMWatch, error) {
	file, _, err := m.oomFile()
	if err != nil {
		return nil, err
	}
	w := &OOMWatch{fd: -1, group: m, v2: m.host.Hierarchies[m.host.find("memory")].Unified}
	if w.v2 {
		w.fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err == nil {
			_, err = unix.InotifyAddWatch(w.fd, file, unix.IN_MODIFY|unix.IN_DELETE_SELF)
		}
	} else {
		w.fd, err = watchOOMv1(filepath.Dir(file), file)
	}
	if err != nil {
		w.Close()
		if errors.Is(err, unix.EMFILE) && w.v2 {
			return nil, errs.New(errs.Exhausted, "watch %s for out-of-memory kills: %w: raise fs.inotify.max_user_instances", file, err)
		}
		return nil, errs.Wrap(err, "watch %s for out-of-memory kills", file)
	}
	return w, nil
}

// watchOOMv1 follows the kernel's cgroup-v1/memory document, section 10.
func watchOOMv1(dir, file string) (int, error) {
	oom, err := openRetry(file, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(oom)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if err := writeFile(filepath.Join(dir, "cgroup.event_control"), fmt.Sprintf("%d %d", fd, oom)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// FD is the descriptor to wait on; it stays the watch's.
func (w *OOMWatch) FD() int { return w.fd }

// Read takes the news off the descriptor and gives the kills so far; a removed group is NotFound.
func (w *OOMWatch) Read() (uint64, error) {
	var buf [4096]byte
	for {
		n, err := unix.Read(w.fd, buf[:])
		if err == unix.EINTR || err == nil && n == len(buf) {
			continue
		}
		break
	}
	return w.group.OOMCount()
}

// Close ends the watch.
func (w *OOMWatch) Close() error {
	if w.fd < 0 {
		return nil
	}
	fd := w.fd
	w.fd = -1
	return unix.Close(fd)
}
