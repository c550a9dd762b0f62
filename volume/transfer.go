package volume

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/overlay"
	"github.com/shoalhq/shoal/lib/projquota"
	"github.com/shoalhq/shoal/model"
)

// Backup writes the content of a volume as a tar archive in the pax format. The volume is mounted for it when it is not,
// and cannot be removed meanwhile. With layer the archive is that of an image's layer, the content in LayerDir.
func (v *Volumes) Backup(ctx context.Context, name string, w io.Writer, layer bool) error {
	src, release, err := v.hold(ctx, name, "backup")
	if err != nil {
		return err
	}
	defer release()
	under := ""
	if layer {
		under = LayerDir
	}
	return errs.Wrap(writeArchive(ctx, w, src, under, layer), "back up volume %s", name)
}

// LayerDir is where an image that a volume was backed up to has the content: a container of that image which mounts an
// empty volume there gets the content back by any engine that copies up.
const LayerDir = "volume"

// hold opens a volume's content, mounted, and keeps it until release.
func (v *Volumes) hold(ctx context.Context, name, what string) (dir *os.File, release func(), err error) {
	holder := what + "-" + ids.Short(ids.New()) // is named when somebody wants to remove the volume meanwhile
	if err := v.Use(ctx, name, holder, false); err != nil {
		return nil, nil, err
	}
	m, err := v.Mount(ctx, name, holder)
	if err != nil {
		v.Release(ctx, name, holder)
		return nil, nil, err
	}
	release = func() {
		dir.Close()
		ctx := context.WithoutCancel(ctx)
		if err := v.Unmount(ctx, name, holder); err != nil {
			v.cfg.Log.Warn("a volume stays mounted", "volume", name, "error", err)
		}
		v.Release(ctx, name, holder)
	}
	if dir, err = os.Open(m.Source); err != nil {
		release()
		return nil, nil, errs.Wrap(err, "open volume %s", name)
	}
	return dir, release, nil
}

// Restore makes the volume that is asked for of an archive, which may be packed with gzip or zstd. With replace the content
// takes the place of an existing volume's. Nothing is to be seen of it before all of it is on the disk.
func (v *Volumes) Restore(ctx context.Context, want model.Volume, replace bool, archive io.Reader) (model.Volume, error) {
	return v.build(ctx, want, replace, func(dst *os.File) error { return readArchive(ctx, archive, dst) })
}

// RestoreLayers is Restore from an image that Backup made a layer of, or of any that has a directory LayerDir.
func (v *Volumes) RestoreLayers(ctx context.Context, want model.Volume, replace bool, lowers []string, progress func(bytes int64)) (model.Volume, error) {
	return v.build(ctx, want, replace, func(dst *os.File) error {
		if len(lowers) == 0 {
			return errs.New(errs.Invalid, "the image is empty")
		}
		view, err := overlay.Mount(overlay.Dirs{Lower: lowers})
		if err != nil {
			return errs.Wrap(err, "look into the image")
		}
		defer view.Close()
		src, err := openBelow(view, LayerDir)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			return errs.New(errs.Invalid, "the image has no directory /%s: no volume was backed up to it", LayerDir)
		}
		if err != nil {
			return err
		}
		defer src.Close()
		c := copier{ctx: ctx, image: true, progress: progress}
		return c.tree(src, dst)
	})
}

// Clone makes the volume that is asked for with a copy of another's content; without labels in want it gets the other's.
func (v *Volumes) Clone(ctx context.Context, from string, want model.Volume, progress func(bytes int64)) (model.Volume, error) {
	source, err := v.get(from)
	if err != nil {
		return model.Volume{}, err
	}
	if want.Labels == nil {
		want.Labels = source.Labels
	}
	return v.build(ctx, want, false, func(dst *os.File) error {
		src, release, err := v.hold(ctx, from, "clone")
		if err != nil {
			return err
		}
		defer release()
		c := copier{ctx: ctx, progress: progress}
		return c.tree(src, dst)
	})
}

// build makes a volume with content beside the others and puts it in its place when it is whole.
func (v *Volumes) build(ctx context.Context, want model.Volume, replace bool, fill func(dst *os.File) error) (model.Volume, error) {
	vol, err := v.prepare(want)
	if err == nil {
		vol, err = v.mayPlace(vol, replace) // with replace: of the size that the old one has
	}
	if err != nil {
		return vol, err
	}
	temp := filepath.Join(v.cfg.Root, halfMade+ids.New())
	defer discard(temp) // has the old content by then, if all went well and there was any
	if err := v.stage(temp, vol, fill); err != nil {
		return vol, errs.Wrap(err, "volume %s", vol.Name)
	}
	if err := failpoint.Hit("volume/build/place"); err != nil {
		return vol, errs.Wrap(err, "volume %s", vol.Name)
	}
	defer v.busy.Lock(vol.Name)()
	if vol, err = v.mayPlace(vol, replace); err != nil { // things may have changed while the content came
		return vol, err
	}
	if _, err := v.get(vol.Name); err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, filepath.Join(temp, dataDir), unix.AT_FDCWD, v.data(vol.Name), unix.RENAME_EXCHANGE)
		if err == nil {
			err = atomicfile.SyncDir(v.dir(vol.Name))
		}
		if err == nil {
			v.event("restore", vol.Name, vol.Driver)
		}
		return vol, errs.Wrap(err, "replace the content of volume %s", vol.Name)
	}
	if err := os.Rename(temp, v.dir(vol.Name)); err != nil {
		return vol, errs.Wrap(err, "volume %s", vol.Name)
	}
	if err := atomicfile.SyncDir(v.cfg.Root); err != nil {
		return vol, errs.Wrap(err, "volume %s", vol.Name)
	}
	v.mu.Lock()
	v.all[vol.Name] = newEntry(vol)
	v.mu.Unlock()
	v.event("create", vol.Name, vol.Driver)
	return vol, nil
}

// stage makes a volume's directory under another name, with its content on the disk.
func (v *Volumes) stage(temp string, vol model.Volume, fill func(dst *os.File) error) error {
	if err := v.makeDir(temp, vol); err != nil {
		return err
	}
	dst, err := os.Open(filepath.Join(temp, dataDir))
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := fill(dst); err != nil {
		return err
	}
	if err := unix.Syncfs(int(dst.Fd())); err != nil {
		return err
	}
	return projquota.Check(dst.Name())
}

// mayPlace says whether content can become the volume, and gives what is there of it already.
func (v *Volumes) mayPlace(vol model.Volume, replace bool) (model.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, err := v.entry(vol.Name)
	switch {
	case errs.Is(err, errs.NotFound):
		return vol, nil
	case err != nil:
		return vol, err
	case !replace:
		return vol, errs.New(errs.Conflict, "volume %s exists already: choose another name, or remove it first, or replace its content (--replace)", vol.Name)
	case !plain(e.volume):
		return vol, errs.New(errs.Unsupported, "the content of volume %s cannot be replaced: it is not a directory of this node's volumes (driver %s, options %v); "+
			"restore to a new volume and copy", vol.Name, e.volume.Driver, e.volume.Options)
	case len(e.mounted) > 0:
		return vol, errs.New(errs.Conflict, "the content of volume %s cannot be replaced while these run with it: %s; stop them first",
			vol.Name, strings.Join(sortedSet(e.mounted), ", "))
	}
	return e.volume, nil
}

// openBelow opens a directory of a tree; links are followed within the tree only.
func openBelow(root *os.File, path string) (*os.File, error) {
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := openat.Open(int(root.Fd()), strings.TrimLeft(filepath.Clean("/"+path), "/")+"/.", how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
