package initproc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/runtime/spec"
)

// procDir is a directory verified to be the root of a procfs. A fresh detached instance has nothing mounted over any of
// its files; where the kernel refuses one, the container's /proc is used and no mount on the way is crossed.
type procDir struct{ fd int }

func (p *initProcess) procfs() (*procDir, error) {
	if p.proc != nil {
		return p.proc, nil
	}
	fd, err := freshProc()
	if err != nil {
		fd, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open /proc in the container: %w", err)
		}
	}
	if err := checkProc(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	p.proc = &procDir{fd}
	return p.proc, nil
}

func freshProc() (int, error) {
	ctx, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func checkProc(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("look at /proc: %w", err)
	}
	if int64(fs.Type) != unix.PROC_SUPER_MAGIC {
		return errs.New(errs.Forbidden, "/proc in the container is not a procfs (file system type %#x); nothing may be written there", fs.Type)
	}
	return nil
}

// Write writes value to the file name below the procfs, and only to a file of procfs.
func (d *procDir) Write(name, value string) error {
	how := unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := openat.Open(d.fd, name, &how)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/" + name, Err: err}
	}
	defer unix.Close(fd)
	if err := checkProc(fd); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: "/proc/" + name, Err: err}
	}
	return nil
}

func (p *initProcess) sysctls() error {
	if len(p.cfg.Sysctl) == 0 {
		return nil
	}
	proc, err := p.procfs()
	if err != nil {
		return err
	}
	for key, value := range p.cfg.Sysctl {
		if err := proc.Write("sys/"+spec.SysctlPath(key), value); err != nil {
			return errs.Wrap(err, "set sysctl %s to %q", key, value)
		}
	}
	return nil
}
