package node

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// mountExecRoot makes sure that the exec root forgets with a restart of the machine, and is fast: a container's start
// makes a dozen small files there, each of which costs up to a millisecond on a disk's file system. Where the directory
// is not on a tmpfs already, as below /run it mostly is, one is mounted, and stays: it holds what the next daemon must know
// until the machine is restarted.
func mountExecRoot(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return nil
	}
	err := unix.Mount("shoal-exec", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711,size=25%")
	return errs.Wrap(err, "mount a tmpfs on the exec root %s", dir)
}
