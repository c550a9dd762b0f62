// Package projquota bounds what directory trees take on disk by the project quotas of ext4 and xfs: a tree has a project
// ID, which everything that is made in it inherits, and the filesystem a limit for each ID; and on btrfs by subvolumes with
// limits. It must not know whose trees they are.
//
// The limit holds against accidents. A process that has the rights of the host's root over its files, in no user namespace,
// can take them out of the project again; the kernel has no means against that.
package projquota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Of linux/fs.h, linux/quota.h and linux/dqblk_xfs.h.
const (
	fsGetXattr     = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr     = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherit = 0x200      // FS_XFLAG_PROJINHERIT
	projectQuota   = 2          // PRJQUOTA
	getQuota       = 0x800007   // Q_GETQUOTA
	setQuota       = 0x800008   // Q_SETQUOTA
	getState       = 'X'<<8 + 5 // Q_XGETQSTAT
	enforced       = 1 << 5     // FS_QUOTA_PDQ_ENFD
	blockLimits    = 1          // QIF_BLIMITS
)

// attributes is struct fsxattr.
type attributes struct {
	flags, extSize, extents, project, cowExtSize uint32
	_                                            [8]byte
}

// quota is struct if_dqblk; limits are in KiB, the space in bytes.
type quota struct {
	hard, soft, space             uint64
	inodesHard, inodesSoft, files uint64
	blockTime, inodeTime          uint64
	valid                         uint32
	_                             uint32
}

// state is struct fs_quota_stat, as far as it is read here.
type state struct {
	version int8
	flags   uint16
	_       [76]byte
}

// choosing makes finding a free ID and taking it one step.
var choosing sync.Mutex

// Limit gives the empty directories, which are on one filesystem, a project of their own with the limit. Unsupported says
// why the filesystem cannot.
func Limit(bytes uint64, dirs ...string) error {
	if onBtrfs(dirs[0]) {
		if len(dirs) > 1 {
			return errs.New(errs.Unsupported, "btrfs can limit one directory alone, not those of a container's layer together; use a volume with a size, or ext4 or xfs mounted with prjquota")
		}
		return limitSubvolume(bytes, dirs[0])
	}
	fd, err := unix.Open(dirs[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dirs[0], Err: err}
	}
	defer unix.Close(fd)
	if err := supported(fd); err != nil {
		return err
	}
	choosing.Lock()
	defer choosing.Unlock()
	id, err := free(fd)
	if err != nil {
		return errs.Wrap(err, "find a free project ID")
	}
	if err := setLimit(fd, id, bytes); err != nil {
		return errs.Wrap(err, "set the limit of project %d", id)
	}
	for _, dir := range dirs {
		if err := assign(dir, id); err != nil {
			setLimit(fd, id, 0)
			return errs.Wrap(err, "give %s to project %d", dir, id)
		}
	}
	return nil
}

// Join gives an empty directory the project of another, or on btrfs the same limit.
func Join(dir, other string) error {
	if onBtrfs(dir) {
		return joinSubvolume(dir, other)
	}
	id, err := Project(other)
	if err != nil || id == 0 {
		return err
	}
	return assign(dir, id)
}

// Project is the ID from here that a directory gives to what is made in it; 0 for none.
func Project(dir string) (uint32, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var a attributes
	if err := ioctl(fd, fsGetXattr, unsafe.Pointer(&a)); err != nil || a.flags&projectInherit == 0 {
		return 0, nil // a filesystem without projects, or none here
	}
	if a.project < ownIDs || a.project >= 2*ownIDs {
		return 0, nil // the administrator's, of a directory above
	}
	return a.project, nil
}

// ownIDs is the first of the IDs that are given here, up to twice as many.
const ownIDs = 1 << 30

// Check says whether a directory's project has more than its limit: ext4 lets processes with CAP_SYS_RESOURCE pass it.
func Check(dir string) error {
	id, err := Project(dir)
	if err != nil || id == 0 {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var q quota
	if err := quotactl(fd, getQuota, id, unsafe.Pointer(&q)); err != nil {
		return errs.Wrap(err, "read the quota of project %d", id)
	}
	if q.hard > 0 && q.space > q.hard*1024 {
		return errs.New(errs.Exhausted, "the content takes %d bytes of the %d that are allowed: %w", q.space, q.hard*1024, unix.EDQUOT)
	}
	return nil
}

// Release takes the limit of a directory's project away, before the directory is removed. One without is no error; a
// subvolume's goes with it.
func Release(dir string) error {
	id, err := Project(dir)
	if err != nil || id == 0 {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return errs.Wrap(setLimit(fd, id, 0), "take the limit of project %d away", id)
}

// supported says why there can be no limit on the filesystem.
func supported(fd int) error {
	var s state
	switch err := quotactl(fd, getState, 0, unsafe.Pointer(&s)); {
	case err == unix.ENOSYS && kernelOld():
		return errs.New(errs.Unsupported, "this kernel cannot set quotas by a directory; Linux 5.14 can")
	case err == unix.EPERM:
		return errs.New(errs.Forbidden, "the daemon is not allowed to set quotas (CAP_SYS_ADMIN)")
	case err != nil || s.flags&enforced == 0:
		return errs.New(errs.Unsupported, "the filesystem does not enforce project quotas: use ext4 made with mkfs.ext4 -O quota,project, or xfs, mounted with the option prjquota")
	}
	return nil
}

func kernelOld() bool {
	err := quotactl(-1, getState, 0, nil)
	return err == unix.ENOSYS
}

// free finds an ID that nothing uses, away from the small numbers of /etc/projid and of other engines.
func free(fd int) (uint32, error) {
	for range 100 {
		id := ownIDs + rand.Uint32N(ownIDs)
		var q quota
		err := quotactl(fd, getQuota, id, unsafe.Pointer(&q))
		if err == unix.ENOENT || err == unix.ESRCH || err == nil && q.hard == 0 && q.soft == 0 && q.space == 0 && q.files == 0 {
			return id, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errors.New("a hundred IDs at random are all in use")
}

func setLimit(fd int, id uint32, bytes uint64) error {
	q := quota{hard: (bytes + 1023) / 1024, valid: blockLimits}
	return quotactl(fd, setQuota, id, unsafe.Pointer(&q))
}

func assign(dir string, id uint32) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var a attributes
	if err := ioctl(fd, fsGetXattr, unsafe.Pointer(&a)); err != nil {
		return err
	}
	a.project, a.flags = id, a.flags|projectInherit
	return ioctl(fd, fsSetXattr, unsafe.Pointer(&a))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return fmt.Errorf("ioctl: %w", e)
	}
	return nil
}

// quotactl is quotactl_fd(2).
func quotactl(fd int, command, id uint32, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command<<8|projectQuota), uintptr(id), uintptr(arg), 0, 0); e != 0 {
		return e
	}
	return nil
}
