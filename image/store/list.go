package store

import (
	"context"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// ListOptions say what a list should work out besides the images.
type ListOptions struct {
	Filters    model.Filters // dangling, label, label!, before, since, until, reference
	SharedSize bool
	Containers bool
}

// List gives the images that pass the filters, newest first.
func (s *Store) List(ctx context.Context, o ListOptions) ([]model.ImageSummary, error) {
	keep, err := s.compile(ctx, o.Filters)
	if err != nil || s.Empty() {
		return nil, err
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	idx, err := s.names(ctx, b)
	if err != nil {
		return nil, err
	}
	s.lookAhead(ctx, b, idx)
	var out []model.ImageSummary
	for _, id := range idx.ids {
		d, err := s.describe(ctx, b, idx.byID[id][0].target, "")
		if err != nil {
			s.cfg.Log.Warn("damaged image is left out of the list", "image", id, "error", err)
			continue
		}
		img := idx.fill(d.image)
		if !keep(&img) {
			continue
		}
		if patterns := o.Filters["reference"]; len(patterns) > 0 { // of an image with several names those asked for are shown
			img.RepoTags, img.RepoDigests = namesLike(img.RepoTags, patterns), namesLike(img.RepoDigests, patterns)
		}
		img.Size = s.sizeOf(ctx, b, d)
		sum := model.ImageSummary{Image: img, SharedSize: -1, Containers: -1}
		if o.Containers {
			sum.Containers = len(s.usersOf(id))
		}
		out = append(out, sum)
	}
	if o.SharedSize {
		s.shared(ctx, b, idx, out)
	}
	slices.SortFunc(out, func(a, b model.ImageSummary) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// lookAhead reads what the first list after a start needs to know of many images: on all processors, and with one transaction
// each, within which the database finds its buckets faster. What it cannot read is left to the caller, who tells of it.
func (s *Store) lookAhead(ctx context.Context, b *backend, idx *index) {
	var unknown []ocispec.Descriptor
	s.mu.Lock()
	for _, id := range idx.ids {
		if t := idx.byID[id][0].target; s.seen[key{t.Digest, ""}] == nil {
			unknown = append(unknown, t)
		}
	}
	s.mu.Unlock()
	if len(unknown) < 2 {
		return
	}
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(len(unknown), runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			b.db.View(func(tx *bolt.Tx) error {
				ctx := boltutil.WithTransaction(ctx, tx)
				for i := next.Add(1) - 1; i < int64(len(unknown)); i = next.Add(1) - 1 {
					if d, err := s.describe(ctx, b, unknown[i], ""); err == nil {
						s.sizeOf(ctx, b, d)
					}
				}
				return nil
			})
		})
	}
	all.Wait()
}

// shared works out how much of each image other images have too.
func (s *Store) shared(ctx context.Context, b *backend, idx *index, list []model.ImageSummary) {
	uses := map[digest.Digest]int{}
	chainsOf := func(id string) ([]digest.Digest, *described) {
		d, err := s.describe(ctx, b, idx.byID[id][0].target, "")
		if err != nil {
			return nil, nil
		}
		return identity.ChainIDs(slices.Clone(d.diffIDs)), d
	}
	for _, id := range idx.ids {
		chains, _ := chainsOf(id)
		for _, c := range chains {
			uses[c]++
		}
	}
	for i := range list {
		list[i].SharedSize = 0
		chains, d := chainsOf(list[i].ID)
		if d == nil {
			continue
		}
		sizes, ok := s.layerSizes(ctx, b, d)
		for n, c := range chains {
			if ok && uses[c] > 1 {
				list[i].SharedSize += sizes[n]
			}
		}
	}
}

// layerSizes gives the unpacked size of each layer, base first; false when the image is not unpacked.
func (s *Store) layerSizes(ctx context.Context, b *backend, d *described) ([]int64, bool) {
	s.mu.Lock()
	sizes := d.unpacked
	s.mu.Unlock()
	if sizes != nil {
		return sizes, true
	}
	names, err := b.layerSnapshots(ctx, d)
	if err != nil {
		return nil, false
	}
	sizes = make([]int64, len(d.diffIDs))
	for i, name := range slices.Backward(names) { // the top one is missing when any is
		u, err := b.snap.Usage(ctx, name)
		if err != nil {
			if !errdefs.IsNotFound(err) {
				s.cfg.Log.Warn("size of layer is not known", "layer", name, "error", err)
			}
			return nil, false
		}
		sizes[min(i, len(sizes)-1)] += u.Size // a build may have made one layer of several snapshots
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.unpacked = sizes
	return sizes, true
}

// History gives the steps in which the image was made, newest first, with sizes.
func (s *Store) History(ctx context.Context, ref, platform string) ([]model.ImageHistory, error) {
	if s.Empty() {
		return nil, notFound(ref)
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	img, _, err := s.resolve(ctx, b, ref, platform)
	if err != nil {
		return nil, err
	}
	steps := slices.Clone(img.History)
	slices.Reverse(steps)
	return steps, nil
}

// steps is the history with sizes, oldest first; nobody may change it.
func (s *Store) steps(ctx context.Context, b *backend, d *described) []model.ImageHistory {
	s.mu.Lock()
	steps := d.sized
	s.mu.Unlock()
	if steps != nil {
		return steps
	}
	sizes, unpacked := s.layerSizes(ctx, b, d)
	steps = slices.Clone(d.image.History)
	next := 0
	for i := range steps {
		if steps[i].EmptyLayer || next >= len(d.layers) {
			continue
		}
		steps[i].Size = d.layers[next].Size
		if unpacked {
			steps[i].Size = sizes[next]
		}
		next++
	}
	if unpacked {
		s.mu.Lock()
		d.sized = steps
		s.mu.Unlock()
	}
	return steps
}

type keepFunc func(*model.Image) bool

// compile makes one test of the filters. A value that makes no sense is Invalid.
func (s *Store) compile(ctx context.Context, filters model.Filters) (keepFunc, error) {
	var tests []keepFunc
	for name, values := range filters {
		var alternatives []keepFunc
		for _, v := range values {
			t, err := s.filter(ctx, name, v)
			if err != nil {
				return nil, err
			}
			alternatives = append(alternatives, t)
		}
		all := name == "label" || name == "label!" || name == "until" || name == "before" || name == "since"
		tests = append(tests, func(i *model.Image) bool {
			for _, t := range alternatives {
				if t(i) != all {
					return !all
				}
			}
			return all
		})
	}
	return func(i *model.Image) bool {
		for _, t := range tests {
			if !t(i) {
				return false
			}
		}
		return true
	}, nil
}

func (s *Store) filter(ctx context.Context, name, value string) (keepFunc, error) {
	switch name {
	case "dangling":
		want, err := strconv.ParseBool(value)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'dangling=%s': want true or false", value)
		}
		return func(i *model.Image) bool { return i.Dangling() == want }, nil
	case "label", "label!":
		key, want, hasValue := strings.Cut(value, "=")
		return func(i *model.Image) bool {
			got, ok := i.Config.Labels[key]
			return (ok && (!hasValue || got == want)) == (name == "label")
		}, nil
	case "before", "since":
		than, err := s.Resolve(ctx, value, "")
		if err != nil {
			return nil, errs.Wrap(err, "filter %s=%s", name, value)
		}
		if name == "before" {
			return func(i *model.Image) bool { return i.Created.Before(than.Created) }, nil
		}
		return func(i *model.Image) bool { return i.Created.After(than.Created) }, nil
	case "until":
		at, err := s.until(value)
		if err != nil {
			return nil, err
		}
		return func(i *model.Image) bool { return i.Created.Before(at) }, nil
	case "reference":
		if _, err := path.Match(value, ""); err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'reference=%s': %w", value, err)
		}
		return func(i *model.Image) bool { return matchesReference(i, value) }, nil
	}
	return nil, errs.New(errs.Invalid, "invalid filter '%s': images can be filtered by before, dangling, label, reference, since, until", name)
}

// until reads a moment as filters have it: a duration back from now, seconds since 1970, or a time stamp.
func (s *Store) until(value string) (time.Time, error) {
	if d, err := time.ParseDuration(value); err == nil {
		return s.cfg.Clock.Now().Add(-d), nil
	}
	if f, err := strconv.ParseFloat(value, 64); err == nil {
		return time.Unix(int64(f), 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, value, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errs.New(errs.Invalid, "invalid filter 'until=%s': want a duration (24h), seconds since 1970, or a time (2006-01-02T15:04:05)", value)
}

// namesLike are the names that one of the patterns matches.
func namesLike(names, patterns []string) (out []string) {
	for _, n := range names {
		one := model.Image{RepoTags: []string{n}}
		if slices.ContainsFunc(patterns, func(p string) bool { return matchesReference(&one, p) }) {
			out = append(out, n)
		}
	}
	return out
}

// matchesReference compares a pattern with familiar names, with and without tag.
func matchesReference(i *model.Image, pattern string) bool {
	for _, tag := range slices.Concat(i.RepoTags, i.RepoDigests) {
		ref, err := model.ParseReference(tag)
		if err != nil {
			continue
		}
		for _, form := range []string{ref.Familiar(), ref.FamiliarName(), ref.String(), ref.Name()} {
			if ok, _ := path.Match(pattern, form); ok {
				return true
			}
		}
	}
	return false
}
