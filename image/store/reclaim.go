package store

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/model"
)

// Watermarks are how full, in percent, the disk may become before images that no container uses are removed by
// themselves, and how full it may be afterwards. The zero value means never.
type Watermarks struct{ High, Low int }

// reclaimGrace is how long an image is safe after it was named: a pull may be followed by the container that it was for.
const reclaimGrace = time.Hour

// full says how full the disk that the directory is on is, in percent, as df counts it.
func full(dir string) (int, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	used := st.Blocks - st.Bfree
	if used+st.Bavail == 0 {
		return 0, nil
	}
	return int((used*100 + used + st.Bavail - 1) / (used + st.Bavail)), nil
}

// reclaimLater looks, after something was added, whether the disk is fuller than wanted. There is no timer: without
// additions images take no more.
func (s *Store) reclaimLater() {
	if s.cfg.Reclaim == nil || s.life.Err() != nil || !s.reclaiming.TryLock() {
		return // off, or on its way
	}
	s.background.Go(func() {
		defer s.reclaiming.Unlock()
		w := s.cfg.Reclaim()
		n, err := s.reclaim(s.life, w, full)
		if err != nil {
			s.cfg.Log.Warn("images cannot be reclaimed", "reason", err)
		} else if n > 0 {
			s.cfg.Log.Info("images that no container uses were removed because the disk was full", "images", n, "above", w.High, "to", w.Low)
		}
	})
}

// reclaim removes unused images, those named longest ago first, until the disk is less full than the low mark. Those
// that containers use stay, whatever happens.
func (s *Store) reclaim(ctx context.Context, w Watermarks, full func(string) (int, error)) (removed int, err error) {
	percent, err := full(s.cfg.Root)
	if err != nil || w.High <= 0 || percent <= w.High {
		return 0, err
	}
	list, err := s.List(ctx, ListOptions{Containers: true})
	if err != nil {
		return 0, err
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return 0, err
	}
	idx, err := s.names(ctx, b)
	if err != nil {
		return 0, err
	}
	slices.SortFunc(list, func(a, b model.ImageSummary) int { return idx.newest(a.ID).Compare(idx.newest(b.ID)) })
	for _, i := range list { // oldest first
		if percent <= w.Low || ctx.Err() != nil {
			break
		}
		if idx, err = s.names(ctx, b); err != nil {
			return removed, err
		}
		if len(s.usersOf(i.ID)) > 0 || len(idx.byID[i.ID]) == 0 || s.cfg.Clock.Now().Sub(idx.newest(i.ID)) < reclaimGrace {
			continue
		}
		if _, err := s.removeRecords(ctx, b, idx.byID[i.ID]); err != nil {
			return removed, err
		}
		removed++
		if err := s.collect(ctx, b); err != nil {
			return removed, err
		}
		if percent, err = full(s.cfg.Root); err != nil {
			return removed, err
		}
	}
	return removed, ctx.Err()
}

// newest is when the image was last given a record, also one without name.
func (x *index) newest(id string) (at time.Time) {
	for _, r := range x.byID[id] {
		if r.tagged.After(at) {
			at = r.tagged
		}
	}
	return at
}
