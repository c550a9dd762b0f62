//go:build kernel

package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSupervisorsApart: supervisors are born in the group that they are given, the one that waits too, and a group that the
// kernel refuses keeps no container from starting.
func TestSupervisorsApart(t *testing.T) {
	group := unifiedMount(t) + fmt.Sprintf("/shoal-task-test-supervisors-%d", os.Getpid())
	t.Cleanup(func() { unix.Rmdir(group) })
	for _, group := range []string{group, "/proc/no-group"} {
		w := newWorld(t)
		w.cfg.Group = group
		for range 2 { // the second one by the supervisor that waits
			r := w.request("exec sleep 1000")
			task, err := w.Start(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", task.proc.Pid))
			if err != nil {
				t.Fatal(err)
			}
			if in := strings.Contains(string(text), "0::/"+filepath.Base(group)+"\n"); in != strings.HasPrefix(group, "/sys") {
				t.Errorf("%s: the supervisor is in %s", group, text)
			}
			task.Signal(context.Background(), 9, true)
			<-task.Done()
			if err := w.Clear(context.Background(), r.Config.ID); err != nil {
				t.Error(err)
			}
			w.makeSpare()
		}
		w.Close()
	}
}

func unifiedMount(t *testing.T) string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	t.Skip("no cgroup2 hierarchy is mounted")
	return ""
}
