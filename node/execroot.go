package node

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine/record"
	"github.com/shoalhq/shoal/lib/errs"
)

// What the tables of mounts call our tmpfs.
const (
	execSource  = "shoal-exec"
	namesSource = "shoal-names"
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
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		err := unix.Mount(execSource, dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711,size=25%")
		if err != nil {
			return errs.Wrap(err, "mount a tmpfs on the exec root %s", dir)
		}
	}
	return mountNames(dir)
}

// mountNames gives the files that containers may write to a small tmpfs of their own: one that writes without end to its
// /etc/hosts must not take the room of the exec root, or of the machine's /run, from everybody else.
func mountNames(execRoot string) error {
	dir := filepath.Join(execRoot, record.NamesDir)
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return err
	}
	var outer, inner unix.Stat_t
	if err := errors.Join(unix.Stat(execRoot, &outer), unix.Stat(dir, &inner)); err != nil {
		return err
	}
	if outer.Dev != inner.Dev {
		return nil
	}
	err := unix.Mount(namesSource, dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0710,size=64m")
	return errs.Wrap(err, "mount a tmpfs on %s", dir)
}
