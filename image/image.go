// Package image is the front of the image room: the store, the archives that go in and out of it, and the images that are
// built in. The engine and the API use it through interfaces of their own. It decides nothing about containers.
package image

import (
	"context"
	"io"

	"github.com/shoalhq/shoal/image/builtin"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/image/transfer"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/keylock"
	"github.com/shoalhq/shoal/model"
)

// Config is the store's.
type Config = store.Config

// Images is the whole room. It is safe for concurrent use.
type Images struct {
	*store.Store
	builtin keylock.Set // one load of a built-in image at a time
}

// Open makes the room; nothing on disk is touched before the first use.
func Open(cfg Config) *Images { return &Images{Store: store.New(cfg)} }

// Resolve is the store's Resolve, and loads a built-in image when its name is asked for and nothing here has that name.
func (i *Images) Resolve(ctx context.Context, ref, platform string) (model.Image, error) {
	img, err := i.Store.Resolve(ctx, ref, platform)
	if errs.Is(err, errs.Damaged) {
		if merr := i.Mend(ctx, ref); merr != nil {
			return img, errs.New(errs.Damaged, "%w; it could not be fetched again by itself: %w", err, merr)
		}
		return i.Store.Resolve(ctx, ref, platform)
	}
	if !errs.Is(err, errs.NotFound) {
		return img, err
	}
	name, ok := builtin.NameFor(ref)
	if !ok {
		return img, err
	}
	defer i.builtin.Lock(name)()
	if img, err := i.Store.Resolve(ctx, ref, platform); err == nil { // another was faster
		return img, nil
	}
	if err := i.loadBuiltin(ctx, name, ref); err != nil {
		return img, errs.Wrap(err, "built-in image %s", name)
	}
	return i.Store.Resolve(ctx, ref, platform)
}

// Tag is the store's; a built-in image can be named before its first use.
func (i *Images) Tag(ctx context.Context, ref, name string) error {
	if _, ok := builtin.NameFor(ref); ok {
		if _, err := i.Resolve(ctx, ref, ""); err != nil {
			return err
		}
	}
	return i.Store.Tag(ctx, ref, name)
}

// Lowers is the store's, and fetches what was damaged on disk and is needed.
func (i *Images) Lowers(ctx context.Context, imageID string) ([]string, error) {
	dirs, err := i.Store.Lowers(ctx, imageID)
	if err == nil || len(i.Damaged()) == 0 {
		return dirs, err
	}
	if merr := i.Mend(ctx, imageID); merr != nil {
		return nil, errs.New(errs.Damaged, "%w; it could not be fetched again by itself: %w", err, merr)
	}
	return i.Store.Lowers(ctx, imageID)
}

func (i *Images) loadBuiltin(ctx context.Context, name, ref string) error {
	f, err := builtin.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	loaded, err := transfer.Load(ctx, i.Store, f, nil, nil)
	if err != nil {
		return err
	}
	want, err := model.ParseReference(ref)
	if err != nil || want.Familiar() == loaded[0].Name {
		return err
	}
	return i.Store.Tag(ctx, loaded[0].ID, ref)
}

// Builtin lists the built-in images, loaded or not.
func (i *Images) Builtin() []string { return builtin.Names() }

// List gives the images that pass the filters, newest first; shared works out how much of each others have too.
func (i *Images) List(ctx context.Context, f model.Filters, shared bool) ([]model.ImageSummary, error) {
	return i.Store.List(ctx, store.ListOptions{Filters: f, SharedSize: shared, Containers: true})
}

// Inspect is Resolve.
func (i *Images) Inspect(ctx context.Context, ref, platform string) (model.Image, error) {
	return i.Resolve(ctx, ref, platform)
}

// Usage accounts for everything in the store.
func (i *Images) Usage(ctx context.Context) (model.ImageUsage, error) { return i.DiskUsage(ctx) }

// Load reads an archive of images; see transfer.Load.
func (i *Images) Load(ctx context.Context, r io.Reader, platforms []string, progress func(model.ImageProgress)) error {
	_, err := transfer.Load(ctx, i.Store, r, platforms, progress)
	return err
}

// Save writes images to an archive; see transfer.Save. A built-in image can be saved before its first use.
func (i *Images) Save(ctx context.Context, refs, platforms []string, w io.Writer) error {
	for _, ref := range refs {
		if _, ok := builtin.NameFor(ref); !ok {
			continue
		}
		if _, err := i.Resolve(ctx, ref, ""); err != nil {
			return err
		}
	}
	err := transfer.Save(ctx, i.Store, refs, platforms, w)
	if err != nil {
		return err
	}
	told := map[string]bool{}
	for _, ref := range refs {
		if img, err := i.Store.Resolve(ctx, ref, ""); err == nil && !told[img.ID] {
			told[img.ID] = true
			i.Event(ctx, "save", img.ID, "")
		}
	}
	return nil
}
