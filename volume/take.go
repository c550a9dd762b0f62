package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Take makes the volume that is asked for with a copy of a directory's content; nothing of it is to be seen before all of it
// is on the disk.
func (v *Volumes) Take(ctx context.Context, want model.Volume, dir string) (model.Volume, error) {
	return v.build(ctx, want, false, func(dst *os.File) error {
		src, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer src.Close()
		c := copier{ctx: ctx}
		return c.tree(src, dst)
	})
}

// errElsewhere says that a directory is on another filesystem.
var errElsewhere = errors.New("another filesystem")

// TakeOver makes the volume that is asked for, or uses one of that name that is empty, and exchanges its content for that of
// the directory, which is empty afterwards. moved is false when the directory is on another filesystem: then it was copied.
func (v *Volumes) TakeOver(ctx context.Context, want model.Volume, dir string) (moved bool, err error) {
	vol, err := v.Create(ctx, want)
	if err != nil {
		return false, err
	}
	if err := v.exchange(vol, dir); err == nil || !errors.Is(err, errElsewhere) {
		return err == nil, errs.Wrap(err, "volume %s", vol.Name)
	}
	if err := v.Remove(ctx, vol.Name, false); err != nil {
		return false, err
	}
	_, err = v.Take(ctx, want, dir)
	return false, err
}

// exchange is one step, so that the content is always in one of the two places.
func (v *Volumes) exchange(vol model.Volume, dir string) error {
	defer v.busy.Lock(vol.Name)()
	data := v.data(vol.Name)
	empty, err := isEmpty(data)
	if err != nil {
		return err
	}
	if users := v.Users(vol.Name); !empty || len(users) > 0 {
		return errs.New(errs.Conflict, "it exists already and is used (%s) or not empty; remove it first", strings.Join(users, ", "))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, data, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		if errors.Is(err, unix.EXDEV) {
			return errElsewhere
		}
		return errs.Wrap(err, "move %s", dir)
	}
	return errors.Join(atomicfile.SyncDir(v.dir(vol.Name)), atomicfile.SyncDir(filepath.Dir(dir)))
}

// CopyChanges copies an overlay's directory of changes to another one, which must be empty. Marks that lead to files below
// the overlay by other ways than their names cannot be taken along: they name the layers they were made on.
func CopyChanges(ctx context.Context, dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Open(dst)
	if err != nil {
		return err
	}
	defer out.Close()
	c := copier{ctx: ctx, upper: true}
	return c.tree(in, out)
}

// changeMark says what becomes of an attribute of a directory of changes when that is copied.
func changeMark(name string) (keep bool, err error) {
	mark, ok := strings.CutPrefix(name, "trusted.overlay.")
	if !ok {
		return true, nil
	}
	switch mark {
	case "opaque", "whiteout", "whiteouts":
		return true, nil
	case "redirect", "metacopy":
		return false, errs.New(errs.Unsupported, "its content is in a layer below under another name (overlay's %s); copy or commit it with the engine that made it", mark)
	}
	return false, nil // origin, impure, nlink and the like are made anew
}
