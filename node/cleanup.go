package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/engine/record"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/network"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/runtime/cgroup"
)

// patience is how long containers may take to stop that ask for more time than the daemon's shutdown gives.
const patience = 2 * time.Minute

// Cleanup is `shoald cleanup`: what a daemon leaves for the next one goes, since there will be none: containers are stopped
// as by a shutdown of the machine, so that those with a restart policy come back with the next installation; then
// bridges, packet filter, mounts and control groups are removed. The data root stays. args are the daemon's own options.
func Cleanup(args []string, out io.Writer) error {
	cfg, _, err := config.Parse(args, out)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return errs.New(errs.Forbidden, "shoald cleanup needs root: it removes mounts and network links")
	}
	cfg.Registry.Server.Listen, cfg.API.MetricsAddr = "", ""
	n := &Node{args: args}
	n.setup(cfg)
	n.level.Set(max(n.level.Level(), levelOf("error"))) // what a daemon would warn of does not matter any more
	if err := checkExecRoot(cfg.Daemon.ExecRoot); err != nil {
		return err
	}
	release, err := claim(cfg.Daemon, mountExecRoot)
	if err != nil {
		return err
	}
	if err = n.build(context.Background(), engine.StopOnly); err == nil {
		err = n.shutdown(max(cfg.Daemon.StopTimeout, patience))
	}
	release()
	if n.tasks == nil {
		return err
	}
	if left, lerr := n.tasks.Known(); lerr == nil && len(left) > 0 {
		return errors.Join(err, errs.New(errs.Conflict, "containers still run, and their networks and files in %s stay: %s; end their processes and do this again",
			cfg.Daemon.ExecRoot, strings.Join(left, ", ")))
	}
	err = errors.Join(err, network.Dismantle(n.networkConfig(&cfg, plugin.New(plugin.Config{}))))
	removeGroups(&cfg)
	return errors.Join(err, clearExecRoot(cfg.Daemon.ExecRoot))
}

// ofDaemon are the names of what a daemon makes in its exec root.
var ofDaemon = []string{"build", "containers", "docker-init", record.NamesDir, "networks", "rootfs", "runtime-*", "shm", "shoald.lock", "tasks"}

// checkExecRoot refuses a directory that no daemon has used since the machine was started, unless there is nothing in it but
// sockets, which are systemd's: a mistyped path must not cost anybody's files.
func checkExecRoot(dir string) error {
	if names, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(filepath.Join(dir, record.NamesDir))); err == nil && len(names) > 0 && names[0].Source == namesSource {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Type()&os.ModeSocket == 0 {
			return errs.New(errs.Invalid, "%s is no exec root of a daemon that ran here: it has %s; give the daemon's own --exec-root", dir, e.Name())
		}
	}
	return nil
}

// clearExecRoot leaves nothing of the daemon's in the exec root, and nothing of it if all was the daemon's.
func clearExecRoot(dir string) (failed error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) { // the last one made lies on top
		if m.Source != execSource && !isOfDaemon(dir, m.Mountpoint) {
			continue
		}
		if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil {
			failed = errors.Join(failed, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); isOfDaemon(dir, path) {
			failed = errors.Join(failed, os.RemoveAll(path))
		}
	}
	os.Remove(dir) // what is not the daemon's may be left
	return failed
}

// isOfDaemon says whether a path lies at or below something that a daemon made in its exec root.
func isOfDaemon(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	first, _, _ := strings.Cut(rel, "/")
	return err == nil && slices.ContainsFunc(ofDaemon, func(pattern string) bool {
		match, _ := filepath.Match(pattern, first)
		return match
	})
}

// removeGroups removes the empty control groups; those that hold something stay.
func removeGroups(cfg *config.Config) {
	host, err := cgroup.Detect()
	if err != nil {
		return
	}
	parent := groupsParent(cfg)
	for _, h := range host.Hierarchies {
		for _, group := range []string{parent, parent + supervisorsSuffix} {
			unix.Rmdir(filepath.Join(h.Mount, group))
		}
	}
}
