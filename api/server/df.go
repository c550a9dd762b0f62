package server

import (
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// diskUsage tells what images, containers, volumes and the build cache take on disk. Versions from 1.52 have totals for
// each kind; a client that says verbose gets the objects with them, any other also as the older versions listed them.
func (s *Server) diskUsage(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	kinds := []string{"container", "image", "volume", "build-cache"}
	want := kinds
	if asked := q.Values["type"]; v >= 42 && len(asked) > 0 {
		for _, k := range asked {
			if !slices.Contains(kinds, k) {
				return errs.New(errs.Invalid, "unknown object type %q; use container, image, volume or build-cache", k)
			}
		}
		want = asked
	}
	verbose := v >= 52 && q.bool("verbose")
	usage := &system.DiskUsage{}
	out := diskUsageAnswer{}
	if v >= 52 {
		out.DiskUsage = usage
	}
	legacy := !verbose
	if slices.Contains(want, "image") && s.b.Images != nil {
		if err := s.imageUsage(r.Context(), usage, &out, legacy, v); err != nil {
			return err
		}
	}
	if slices.Contains(want, "container") && s.b.Containers != nil {
		if err := s.containerUsage(r.Context(), usage, &out, legacy, v); err != nil {
			return err
		}
	}
	if slices.Contains(want, "volume") && s.b.Volumes != nil {
		if err := s.volumeUsage(r.Context(), usage, &out, legacy, v); err != nil {
			return err
		}
	}
	if slices.Contains(want, "build-cache") {
		// On a full disk the builder may not be able to open its records; the rest is what the asker needs then.
		if err := s.cacheUsage(r.Context(), usage, &out, legacy, v); err != nil && len(want) == 1 {
			return err
		} else if err != nil {
			s.log.Warn("the build cache is left out of the disk usage", "error", err)
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) imageUsage(ctx ctx, usage *system.DiskUsage, out *diskUsageAnswer, legacy bool, v types.Version) error {
	u, err := s.b.Images.Usage(ctx)
	if err != nil {
		return err
	}
	// Everything in the store, packed and unpacked, but for what is counted as the build cache's: so the lines of df add up to
	// what the disk says.
	total, own := u.LayersSize+u.ContentSize, int64(0)
	if s.b.Builds != nil {
		if list, err := s.b.Builds.Cache(ctx); err == nil {
			for _, r := range list {
				own += ownSize(r)
			}
		}
	}
	total = max(0, total-own)
	usage.ImageUsage = &image.DiskUsage{ActiveCount: int64(u.ActiveImages), TotalCount: int64(len(u.Images)), TotalSize: total, Reclaimable: max(0, u.Reclaimable-own)}
	if legacy {
		list := make([]any, 0, len(u.Images))
		for i := range u.Images {
			list = append(list, convert.ImageSummary(&u.Images[i], max(v, 51))) // df counted containers long before lists did
		}
		if v < 44 {
			for i := range u.Images {
				list[i] = convert.ImageSummary(&u.Images[i], v)
			}
		}
		out.Images, out.LayersSize = &list, &total
	}
	if v >= 52 {
		for i := range u.Images {
			if sum, ok := convert.ImageSummary(&u.Images[i], v).(image.Summary); ok {
				usage.ImageUsage.Items = append(usage.ImageUsage.Items, sum)
			}
		}
	}
	return nil
}

func (s *Server) containerUsage(ctx ctx, usage *system.DiskUsage, out *diskUsageAnswer, legacy bool, v types.Version) error {
	list, err := s.b.Containers.List(ctx, model.ListOptions{All: true, Size: true})
	if err != nil {
		return err
	}
	u := &container.DiskUsage{TotalCount: int64(len(list))}
	now := s.clock.Now()
	items := make([]container.Summary, 0, len(list))
	for i := range list {
		var size int64
		if list[i].Size != nil {
			size = list[i].Size.Writable
		}
		u.TotalSize += size
		if list[i].State.Alive() || list[i].State.Status == model.StatusRestarting {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
		items = append(items, convert.Summary(&list[i], v, now))
	}
	usage.ContainerUsage = u
	if legacy {
		out.Containers = items
	}
	if v >= 52 {
		u.Items = items
	}
	return nil
}

func (s *Server) volumeUsage(ctx ctx, usage *system.DiskUsage, out *diskUsageAnswer, legacy bool, v types.Version) error {
	list, _, err := s.b.Volumes.List(ctx, nil, true)
	if err != nil {
		return err
	}
	u := &volume.DiskUsage{TotalCount: int64(len(list))}
	for i := range list {
		use := list[i].Usage
		if use == nil {
			continue
		}
		size := max(use.Size, 0)
		u.TotalSize += size
		if use.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
	}
	usage.VolumeUsage = u
	if legacy {
		out.Volumes = volumes(list)
	}
	if v >= 52 {
		u.Items = volumes(list)
	}
	return nil
}

// ownSize is what a record takes besides images.
func ownSize(r model.BuildCacheRecord) int64 {
	if r.Shared {
		return 0
	}
	return r.Size
}

// cacheUsage tells of the build cache. What an image has too takes no space of the cache's own.
func (s *Server) cacheUsage(ctx ctx, usage *system.DiskUsage, out *diskUsageAnswer, legacy bool, v types.Version) error {
	var list []model.BuildCacheRecord
	if s.b.Builds != nil {
		var err error
		if list, err = s.b.Builds.Cache(ctx); err != nil {
			return err
		}
	}
	u := &build.DiskUsage{TotalCount: int64(len(list))}
	items := make([]build.CacheRecord, 0, len(list))
	for _, r := range list {
		item := build.CacheRecord{ID: r.ID, Parents: r.Parents, Type: r.Type, Description: r.Description, InUse: r.InUse, Shared: r.Shared,
			Size: r.Size, CreatedAt: r.Created, UsageCount: r.UsageCount}
		if !r.LastUsed.IsZero() {
			item.LastUsedAt = &r.LastUsed
		}
		items = append(items, item)
		if r.InUse {
			u.ActiveCount++
		}
		u.TotalSize += ownSize(r)
		if !r.InUse {
			u.Reclaimable += ownSize(r)
		}
	}
	usage.BuildCacheUsage = u
	if legacy {
		out.BuildCache = &items
	}
	if v >= 31 && v < 42 {
		out.BuilderSize = &u.TotalSize
	}
	if v >= 52 {
		u.Items = items
	}
	return nil
}
