package ocicli

import (
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/container"
)

func (c *command) events(args []string) (int, error) {
	f := flags("events")
	once := f.Bool("stats", false, "")
	interval := f.Duration("interval", 5*time.Second, "")
	rest, err := parse(f, args, 1, 1, "[--stats] [--interval DURATION] ID")
	if err != nil {
		return 1, err
	}
	if *interval <= 0 {
		return 1, errs.New(errs.Invalid, "events: --interval %s is not above 0", *interval)
	}
	m, err := c.rt.Cgroup(rest[0])
	if err != nil {
		return 1, err
	}
	s, err := c.rt.State(rest[0])
	if err != nil {
		return 1, err
	}
	if s.Pid == 0 {
		return 1, errs.New(errs.Conflict, "events: container %q is not running", rest[0])
	}
	if *once {
		return 0, c.printStats(rest[0], m)
	}
	return 0, c.follow(rest[0], s, m, *interval)
}

func (c *command) printEvent(typ, id string, data any) error {
	return json.NewEncoder(c.out).Encode(struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		Data any    `json:"data,omitempty"`
	}{typ, id, data})
}

func (c *command) printStats(id string, m *cgroup.Manager) error {
	s, err := m.Stats()
	if err != nil {
		return err
	}
	return c.printEvent("stats", id, convertStats(s))
}

// follow prints statistics at each interval and out-of-memory kills as they come, until the container has ended.
func (c *command) follow(id string, s *container.Status, m *cgroup.Manager, interval time.Duration) error {
	pidfd, err := unix.PidfdOpen(s.Pid, 0)
	if err != nil {
		return nil // just ended
	}
	defer unix.Close(pidfd)
	watch, err := m.WatchOOM()
	if err != nil {
		return err
	}
	defer watch.Close()
	next := time.Now()
	for {
		wait := time.Until(next)
		if wait <= 0 {
			if err := c.printStats(id, m); err != nil {
				return err
			}
			next = time.Now().Add(interval)
			continue
		}
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(watch.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(wait.Milliseconds())+1); err != nil && err != unix.EINTR {
			return err
		}
		if fds[1].Revents != 0 {
			if _, err := watch.Read(); err != nil {
				return nil // the group is gone
			}
			if err := c.printEvent("oom", id, nil); err != nil {
				return err
			}
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}
