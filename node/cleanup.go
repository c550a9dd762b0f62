package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine"
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
	n.level.Set(max(n.level.Level(), levelOf("warn")))
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

// clearExecRoot leaves nothing of the exec root but sockets, which are not the daemon's when systemd made them.
func clearExecRoot(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- { // the last one made lies on top
		if uerr := unix.Unmount(mounts[i].Mountpoint, unix.UMOUNT_NOFOLLOW); uerr != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", mounts[i].Mountpoint, uerr))
		}
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type()&os.ModeSocket == 0 {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	os.Remove(dir) // a socket may be left
	return err
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
