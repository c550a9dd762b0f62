package volume

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/overlay"
)

// Fill copies what an image has at path into the volume, if the volume is empty, and gives the volume's directory that
// directory's owner and mode. An image that has no directory there changes nothing. The content appears at once: until
// the copy is whole the volume stays empty, whatever happens. lowers are the image's layers, top first; its symbolic
// links are followed within the image only.
func (v *Volumes) Fill(ctx context.Context, name string, lowers []string, path string) error {
	defer v.busy.Lock(name)()
	vol, err := v.get(name)
	if err != nil {
		return err
	}
	if !plain(vol) || len(lowers) == 0 {
		return nil
	}
	if empty, err := isEmpty(vol.Mountpoint); err != nil || !empty {
		return errs.Wrap(err, "fill volume %s", name)
	}
	view, err := overlay.Mount(overlay.Dirs{Lower: lowers})
	if err != nil {
		return errs.Wrap(err, "fill volume %s: look into the image", name)
	}
	defer view.Close()
	src, err := openBelow(view, path)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return errs.Wrap(err, "fill volume %s: open %s in the image", name, path)
	}
	defer src.Close()
	return errs.Wrap(v.fill(ctx, vol.Mountpoint, src), "fill volume %s from %s", name, path)
}

// fill copies into a new directory beside the volume's and puts it in its place.
func (v *Volumes) fill(ctx context.Context, data string, src *os.File) error {
	fresh := filepath.Join(v.cfg.Root, halfMade+ids.New())
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(fresh) // is gone by then if all went well
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
	if err := failpoint.Hit("volume/fill/rename"); err != nil {
		return err
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
