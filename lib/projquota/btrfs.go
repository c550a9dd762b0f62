package projquota

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// btrfs knows no projects. There, a tree with a limit is a subvolume, and the limit is that of its quota group. Of
// linux/btrfs.h and linux/btrfs_tree.h.
const (
	subvolCreate = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	groupLimit   = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	treeSearch   = 0xd0009411 // BTRFS_IOC_TREE_SEARCH
	inodeLookup  = 0xd0009412 // BTRFS_IOC_INO_LOOKUP

	subvolRoot  = 256 // BTRFS_FIRST_FREE_OBJECTID: the inode of a subvolume's root
	quotaTree   = 8   // BTRFS_QUOTA_TREE_OBJECTID
	limitKey    = 244 // BTRFS_QGROUP_LIMIT_KEY
	maxReferred = 1   // BTRFS_QGROUP_LIMIT_MAX_RFER
)

type groupLimits struct {
	id, flags, referred, exclusive, reserved, reservedExclusive uint64
}

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// lookupArgs is struct btrfs_ioctl_ino_lookup_args.
type lookupArgs struct {
	tree, object uint64
	name         [4080]byte
}

// searchArgs is struct btrfs_ioctl_search_args.
type searchArgs struct {
	tree                       uint64
	objects, offsets, transids [2]uint64 // from, to
	types                      [2]uint32
	items                      uint32
	_                          uint32
	_                          [4]uint64
	buf                        [3992]byte
}

// onBtrfs says whether a directory is there.
func onBtrfs(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.BTRFS_SUPER_MAGIC
}

// Subvolume says whether a directory is the root of a btrfs subvolume, which no directory can be renamed over.
func Subvolume(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Ino == subvolRoot && onBtrfs(dir)
}

// limitSubvolume puts a subvolume with a limit into an empty directory's place.
func limitSubvolume(bytes uint64, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	parent, err := unix.Open(filepath.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	defer unix.Close(parent)
	if err := os.Remove(dir); err != nil {
		return err
	}
	var args volArgs
	copy(args.name[:len(args.name)-1], filepath.Base(dir))
	if err := ioctl(parent, subvolCreate, unsafe.Pointer(&args)); err != nil {
		return errs.Wrap(err, "make a btrfs subvolume")
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Fchown(fd, int(st.Uid), int(st.Gid)), unix.Fchmod(fd, st.Mode&0o7777)); err != nil {
		return err
	}
	err = ioctl(fd, groupLimit, unsafe.Pointer(&groupLimits{flags: maxReferred, referred: bytes}))
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EINVAL) {
		return errs.New(errs.Unsupported, "quotas of this btrfs filesystem are not enabled: enable them with `btrfs quota enable %s` (or, from Linux 6.7 on, --simple, which is faster)", filepath.Dir(dir))
	}
	return errs.Wrap(err, "set the limit of the btrfs subvolume")
}

// subvolumeLimit is the limit of the subvolume that a directory is the root of; 0 for none.
func subvolumeLimit(dir string) (uint64, error) {
	if !Subvolume(dir) {
		return 0, nil
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	at := lookupArgs{object: subvolRoot}
	if err := ioctl(fd, inodeLookup, unsafe.Pointer(&at)); err != nil {
		return 0, errs.Wrap(err, "ID of the btrfs subvolume %s", dir)
	}
	s := searchArgs{tree: quotaTree, offsets: [2]uint64{at.tree, at.tree}, transids: [2]uint64{0, ^uint64(0)}, types: [2]uint32{limitKey, limitKey}, items: 1}
	switch err := ioctl(fd, treeSearch, unsafe.Pointer(&s)); {
	case errors.Is(err, unix.ENOENT) || err == nil && s.items == 0: // no quotas, or no limit
		return 0, nil
	case err != nil:
		return 0, errs.Wrap(err, "limit of the btrfs subvolume %s", dir)
	}
	// A header of 32 bytes (transaction, object, offset; type, length), then flags and the limit, little-endian on the disk.
	item := s.buf[32:]
	if binary.LittleEndian.Uint64(item)&maxReferred == 0 {
		return 0, nil
	}
	return binary.LittleEndian.Uint64(item[8:]), nil
}

// joinSubvolume gives an empty directory the same limit as a subvolume has. It counts for itself: of the two, one is to
// take the other's place.
func joinSubvolume(dir, other string) error {
	bytes, err := subvolumeLimit(other)
	if err != nil || bytes == 0 {
		return err
	}
	return limitSubvolume(bytes, dir)
}
