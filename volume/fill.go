package volume

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/overlay"
	"github.com/shoalhq/shoal/lib/projquota"
	"github.com/shoalhq/shoal/model"
)

// Fill copies what an image has at path into the volume, if the volume is empty, and gives the volume's directory that
// directory's owner and mode. An image that has no directory there changes nothing. The content appears at once: until
// the copy is whole the volume stays empty, whatever happens. lowers are the image's layers, top first; its symbolic
// links are followed within the image only. A volume of another filesystem is mounted for it, except one in memory, which
// would forget it. With sub, that directory of the volume is filled; one that is not there is left to the mount to complain of.
func (v *Volumes) Fill(ctx context.Context, name string, lowers []string, path, sub string) error {
	vol, err := v.get(name)
	if err != nil || len(lowers) == 0 || vol.Driver == model.LocalDriver && vol.Options["type"] == "tmpfs" {
		return err
	}
	if plain(vol) {
		if err := v.fillPlain(ctx, name, lowers, path, sub); err != nil {
			return errs.Wrap(err, "fill volume %s from %s", name, path)
		}
		return nil
	}
	defer v.filling.Lock(name)()
	src, err := openImage(lowers, path)
	if err != nil || src == nil {
		return errs.Wrap(err, "fill volume %s", name)
	}
	defer src.Close()
	dst, release, err := v.hold(ctx, name, "fill")
	if err != nil {
		return err
	}
	defer release()
	return errs.Wrap(fillPart(ctx, dst, src, sub), "fill volume %s from %s", name, path)
}

// fillPart fills a directory of a volume; "" is its root.
func fillPart(ctx context.Context, root, src *os.File, sub string) error {
	if sub == "" {
		return fillInPlace(ctx, root, src)
	}
	part, err := openBelow(root, sub)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return errs.Wrap(err, "open %s in the volume", sub)
	}
	defer part.Close()
	return fillInPlace(ctx, part, src)
}

// openImage opens a directory of an image; nil when it has none there.
func openImage(lowers []string, path string) (*os.File, error) {
	view, err := overlay.Mount(overlay.Dirs{Lower: lowers})
	if err != nil {
		return nil, errs.Wrap(err, "look into the image")
	}
	defer view.Close()
	src, err := openBelow(view, path)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, nil
	}
	return src, errs.Wrap(err, "open %s in the image", path)
}

func (v *Volumes) fillPlain(ctx context.Context, name string, lowers []string, path, sub string) error {
	unlock, err := v.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	v.mu.Lock()
	e, err := v.entry(name)
	running := err == nil && len(e.mounted) > 0
	v.mu.Unlock()
	if err != nil {
		return err
	}
	vol := e.volume
	empty, err := isEmpty(vol.Mountpoint)
	if err != nil || sub == "" && !empty && !halfFilled(vol.Mountpoint) || sub != "" && empty {
		return err
	}
	src, err := openImage(lowers, path)
	if err != nil || src == nil {
		return err
	}
	defer src.Close()
	if empty && !running {
		return v.fill(ctx, vol, src)
	}
	// Containers that run with it have this directory, and another in its place would not be theirs.
	dst, err := os.Open(vol.Mountpoint)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := fillPart(ctx, dst, src, sub); err != nil || sub != "" {
		return err
	}
	return own(vol.Mountpoint, vol.Options)
}

// halfFilled says whether a crash cut off filling in place.
func halfFilled(dir string) bool {
	for _, name := range []string{partMade, wholeMade} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// fill copies into a new directory beside the volume's and puts it in its place.
func (v *Volumes) fill(ctx context.Context, vol model.Volume, src *os.File) error {
	data := vol.Mountpoint
	fresh := filepath.Join(v.cfg.Root, halfMade+ids.New())
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	defer openat.RemoveAll(fresh)                       // is gone by then if all went well
	if err := projquota.Join(fresh, data); err != nil { // the limit of the volume's size holds for what takes its place
		return err
	}
	dst, err := os.Open(fresh)
	if err != nil {
		return err
	}
	defer dst.Close()
	c := copier{ctx: ctx, image: true}
	if err := c.tree(src, dst); err != nil {
		return err
	}
	if err := unix.Syncfs(int(dst.Fd())); err != nil {
		return err
	}
	if err := own(fresh, vol.Options); err != nil { // what was asked for counts more than what the image has
		return err
	}
	if err := projquota.Check(fresh); err != nil {
		return err
	}
	if err := failpoint.Hit("volume/fill/rename"); err != nil {
		return err
	}
	if projquota.Subvolume(data) { // which cannot be replaced, but exchanged; what is fresh then is the empty one
		return unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, data, unix.RENAME_EXCHANGE)
	}
	return unix.Rename(fresh, data) // data is an empty directory: it is replaced
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if err == io.EOF {
		err = nil
	}
	return len(names) == 0, err
}

// Directories in a volume of another filesystem while it is filled: what is in the first is not whole, what is in the second
// is, and goes to its place.
const (
	partMade  = ".shoal-filling"
	wholeMade = ".shoal-filled"
)

// fillInPlace fills a volume that cannot be exchanged because it is a mount. What a crash leaves is thrown away or
// finished by the next.
func fillInPlace(ctx context.Context, dst, src *os.File) error {
	names, err := readNames(int(dst.Fd()))
	if err != nil {
		return err
	}
	half, whole := slices.Contains(names, partMade), slices.Contains(names, wholeMade)
	others := slices.DeleteFunc(names, func(n string) bool { return n == partMade || n == wholeMade || n == "lost+found" })
	if len(others) > 0 && !whole {
		return nil
	}
	base := fmt.Sprintf("/proc/self/fd/%d/", dst.Fd())
	if half {
		if err := openat.RemoveAll(base + partMade); err != nil {
			return err
		}
	}
	if !whole {
		if err := copyAside(ctx, base, dst, src); err != nil {
			openat.RemoveAll(base + partMade)
			return err
		}
	}
	made, err := openOwn(dst, wholeMade)
	if err != nil {
		return err
	}
	defer made.Close()
	if names, err = readNames(int(made.Fd())); err != nil {
		return err
	}
	for _, name := range names {
		if err := unix.Renameat(int(made.Fd()), name, int(dst.Fd()), name); err != nil {
			return wrapAt(name, err)
		}
	}
	c := copier{ctx: ctx, image: true}
	if err := c.directory(int(src.Fd()), int(dst.Fd())); err != nil && err != unix.EPERM { // a server may not give it away
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(dst.Fd()), wholeMade, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	if err := setTimes(int(dst.Fd()), "", &st); err != nil && err != unix.EPERM {
		return err
	}
	return nil
}

// openOwn opens a directory that filling in place has made. A container that has the volume may have put a link there, which
// would lead to the host's files.
func openOwn(dst *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dst.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil, errs.New(errs.Conflict, "%s in the volume is no directory: the name is the engine's; remove it, or use the volume with nocopy", name)
	}
	if err != nil {
		return nil, wrapAt(name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// copyAside copies an image's directory into the volume under a name of its own.
func copyAside(ctx context.Context, base string, dst, src *os.File) error {
	if err := os.Mkdir(base+partMade, 0o700); err != nil {
		return err
	}
	part, err := openOwn(dst, partMade)
	if err != nil {
		return err
	}
	defer part.Close()
	c := copier{ctx: ctx, image: true}
	if err := c.tree(src, part); err != nil {
		return err
	}
	if err := unix.Syncfs(int(part.Fd())); err != nil {
		return err
	}
	if err := failpoint.Hit("volume/fill/aside"); err != nil {
		return err
	}
	return os.Rename(base+partMade, base+wholeMade)
}
