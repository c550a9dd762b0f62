package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sysctlWatch notices writes to switches of bridges of which the kernel sends no message. The kernel's notice of changed
// files does for those of /proc/sys, as long as the file's name is kept at hand.
type sysctlWatch struct {
	mu    sync.Mutex
	notes *os.File // nil: the kernel gives no notices
	kept  map[string]watched
}

type watched struct {
	index int32 // of the bridge: another one of the same name has another file
	file  *os.File
	wd    int
}

func newSysctlWatch() *sysctlWatch {
	s := &sysctlWatch{kept: map[string]watched{}}
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		s.notes = os.NewFile(uintptr(fd), "sysctl notices")
	}
	return s
}

// keep watches a bridge's switch route_localnet, once. It is a help: without it, the next audit sees what was changed.
func (s *sysctlWatch) keep(bridge string, index int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notes == nil || s.kept[bridge].file != nil && s.kept[bridge].index == index {
		return
	}
	s.drop(bridge)
	path := routeLocalnet(bridge)
	f, err := os.Open("/proc/sys/" + path)
	if err != nil {
		return
	}
	wd := -1
	s.onNotes(func(fd int) { wd, err = unix.InotifyAddWatch(fd, "/proc/sys/"+path, unix.IN_MODIFY) })
	if err != nil || wd < 0 {
		f.Close()
		return
	}
	s.kept[bridge] = watched{index, f, wd}
}

// forget ends it; what is not watched is no error.
func (s *sysctlWatch) forget(bridge string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(bridge)
}

func (s *sysctlWatch) drop(bridge string) {
	if w := s.kept[bridge]; w.file != nil {
		s.onNotes(func(fd int) { unix.InotifyRmWatch(fd, uint32(w.wd)) })
		w.file.Close()
		delete(s.kept, bridge)
	}
}

// onNotes does something with the descriptor of the notices, unless their reader has closed it meanwhile.
func (s *sysctlWatch) onNotes(do func(fd int)) {
	if c, err := s.notes.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { do(int(fd)) })
	}
}

func (s *sysctlWatch) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.kept {
		s.drop(name)
	}
	if s.notes != nil {
		s.notes.Close()
		s.notes = nil
	}
}

// WatchSysctls calls hit after somebody wrote to a switch of a bridge of ours.
func (k *Real) WatchSysctls(hit func(who string)) (*Monitor, error) {
	k.sysctls.mu.Lock()
	notes := k.sysctls.notes
	k.sysctls.mu.Unlock()
	if notes == nil {
		return nil, fmt.Errorf("watch the sysctls of bridges: %w; see the sysctl fs.inotify.max_user_instances", errors.ErrUnsupported)
	}
	m := &Monitor{f: notes, hit: hit, done: make(chan struct{}), read: func(b []byte) (who string) {
		for len(b) >= unix.SizeofInotifyEvent {
			if mask := native.Uint32(b[4:]); mask&(unix.IN_MODIFY|unix.IN_Q_OVERFLOW) != 0 {
				who = somebody
			}
			b = b[min(len(b), unix.SizeofInotifyEvent+int(native.Uint32(b[12:]))):]
		}
		return who
	}}
	go m.run()
	return m, nil
}

func routeLocalnet(bridge string) string { return "net/ipv4/conf/" + bridge + "/route_localnet" }
