package node

import (
	"context"
	"io"
	"strconv"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/image"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/volume"
)

// apiVolumes shows the volume room as the API wants it. Removing goes through the engine, which knows the containers, and
// so does what stands still during a backup.
type apiVolumes struct {
	*volume.Volumes
	engine *engine.Engine
	images *image.Images
}

func (a apiVolumes) Remove(ctx context.Context, name string, force bool) error {
	return a.engine.RemoveVolume(ctx, name, force)
}

// Inspect asks the volume's plug-in, too.
func (a apiVolumes) Inspect(ctx context.Context, name string) (model.Volume, error) {
	return a.Describe(ctx, name)
}

// paused does something, with the volume's containers standing still if asked for.
func (a apiVolumes) paused(ctx context.Context, name string, pause bool, do func() error) error {
	if _, err := a.Inspect(ctx, name); err != nil || !pause {
		if err != nil {
			return err
		}
		return do()
	}
	return a.engine.WithVolumePaused(ctx, name, do)
}

// Backup is server.VolumeContent, as are the next.
func (a apiVolumes) Backup(ctx context.Context, name string, pause bool, w io.Writer) error {
	return a.paused(ctx, name, pause, func() error { return a.Volumes.Backup(ctx, name, w, false) })
}

func (a apiVolumes) BackupImage(ctx context.Context, name string, pause bool, ref string, progress func(int64)) (id string, err error) {
	if _, err := model.ParseReference(ref); err != nil {
		return "", err
	}
	err = a.paused(ctx, name, pause, func() error {
		r, w := io.Pipe()
		defer r.Close() // ends the backup when the import ends early
		go func() { w.CloseWithError(a.Volumes.Backup(ctx, name, counter{w, progress}, true)) }()
		id, err = a.images.Import(ctx, r, model.ImageImport{Ref: ref, Message: "backup of volume " + name,
			Changes: []string{"LABEL io.shoal.volume=" + strconv.Quote(name)}})
		return err
	})
	return id, err
}

// counter tells how much was written.
type counter struct {
	io.Writer
	progress func(int64)
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.progress(int64(n))
	return n, err
}

func (a apiVolumes) RestoreImage(ctx context.Context, want model.Volume, replace bool, ref string, progress func(int64)) (model.Volume, error) {
	img, err := a.images.Resolve(ctx, ref, "")
	if err != nil {
		return want, err
	}
	holder := "restore-" + ids.New()
	if err := a.images.Use(ctx, holder, img.ID); err != nil {
		return want, err
	}
	defer a.images.Release(context.WithoutCancel(ctx), holder)
	lowers, err := a.images.Lowers(ctx, img.ID)
	if err != nil {
		return want, err
	}
	vol, err := a.RestoreLayers(ctx, want, replace, lowers, progress)
	return vol, errs.Wrap(err, "image %s", ref)
}

func (a apiVolumes) Clone(ctx context.Context, from string, want model.Volume, pause bool, progress func(int64)) (vol model.Volume, err error) {
	err = a.paused(ctx, from, pause, func() error {
		vol, err = a.Volumes.Clone(ctx, from, want, progress)
		return err
	})
	return vol, err
}
