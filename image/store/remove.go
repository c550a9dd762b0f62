package store

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// Tag gives the image that ref means one more name.
func (s *Store) Tag(ctx context.Context, ref, name string) error {
	parsed, err := model.ParseReference(name)
	if err != nil {
		return err
	}
	if parsed.Digest != "" {
		return errs.New(errs.Invalid, "cannot give the name %q: a digest belongs to content and cannot be chosen; use name:tag", name)
	}
	if digest.Algorithm(path.Base(parsed.Path)).Available() {
		return errs.New(errs.Invalid, "refusing to create an ambiguous tag using digest algorithm as name: %q; choose another name", name)
	}
	if s.Empty() {
		return notFound(ref)
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	idx, err := s.names(ctx, b)
	if err != nil {
		return err
	}
	f, err := idx.find(ref)
	if err != nil {
		return err
	}
	id, err := s.Record(ctx, parsed.String(), f.target.target)
	if err == nil {
		s.Event(ctx, "tag", id, parsed.Familiar())
	}
	return err
}

// Remove takes names away from an image and, when the last one goes, the image itself. By name it takes that name; by ID
// all of them, which needs force when there are several repositories. An image that containers use needs force and
// then stays, without name, until they are gone. The answer is in the order in which it happened.
func (s *Store) Remove(ctx context.Context, ref string, o model.ImageRemoveOptions) ([]model.ImageDeletion, error) {
	if s.Empty() {
		return nil, notFound(ref)
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	idx, err := s.names(ctx, b)
	if err != nil {
		return nil, err
	}
	f, err := idx.find(ref)
	if err != nil {
		return nil, err
	}
	if len(o.Platforms) > 0 {
		return s.removePlatforms(ctx, b, f, o)
	}
	id := f.target.id
	all := idx.byID[id]
	gone := []*record{f.named}
	if f.named == nil {
		gone = all
	} else {
		gone = append(gone, digestsLeft(f.named, all)...)
	}
	last := len(gone) == len(all)
	users := s.usersOf(id)
	slices.Sort(users)
	switch {
	case f.named == nil && !o.Force && repositories(all) > 1:
		return nil, errs.New(errs.Conflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories: %s; remove the names one by one, or use --force",
			ids.Short(id), strings.Join(familiar(all), ", "))
	case last && len(users) > 0 && !o.Force && f.named == nil:
		return nil, errs.New(errs.Conflict, "conflict: unable to delete %s (must be forced) - image is being used by container %s; remove the container first, or use --force",
			ids.Short(id), shortList(users))
	case last && len(users) > 0 && !o.Force:
		return nil, errs.New(errs.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s; remove the container first, or use --force",
			ref, shortList(users), ids.Short(id))
	}
	return s.remove(ctx, b, gone, last && len(users) == 0)
}

// digestsLeft are the names by digest that a pull or push gave the image in the repository, when the tag is the last one
// there: they go with it, as nobody who removes a tag would find them.
func digestsLeft(tag *record, all []*record) []*record {
	if tag.ref.Digest != "" {
		return nil
	}
	var out []*record
	for _, r := range all {
		switch {
		case r == tag || isUntagged(r.name) || r.ref.Name() != tag.ref.Name():
		case r.ref.Digest == "":
			return nil
		default:
			out = append(out, r)
		}
	}
	return out
}

// remove takes the records away; with whole the image goes with them, else it stays without name.
func (s *Store) remove(ctx context.Context, b *backend, gone []*record, whole bool) ([]model.ImageDeletion, error) {
	if len(gone) == 0 {
		return nil, nil
	}
	id, target := gone[0].id, gone[0].target
	labels := s.labels(ctx, id)
	var out []model.ImageDeletion
	err := b.update(ctx, func(ctx context.Context) error {
		out = nil
		for _, r := range gone {
			if err := b.images.Delete(ctx, r.name); err != nil && !errdefs.IsNotFound(err) {
				return classify(err)
			}
			if !isUntagged(r.name) {
				out = append(out, model.ImageDeletion{Untagged: r.ref.Familiar()})
			}
		}
		if whole {
			return nil
		}
		return b.name(ctx, "", target, id)
	})
	s.changed()
	if err != nil {
		return nil, err
	}
	for _, d := range out {
		s.tell("untag", id, d.Untagged, labels)
	}
	if !whole {
		return out, nil
	}
	s.tell("delete", id, "", labels)
	return append(out, model.ImageDeletion{Deleted: id}), s.collect(ctx, b)
}

// collect removes the content and layers that nothing refers to any more.
func (s *Store) collect(ctx context.Context, b *backend) error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	s.gen++
	s.idx = nil
	clear(s.seen)
	clear(s.lower)
	s.mu.Unlock()
	if _, err := b.db.GarbageCollect(context.WithoutCancel(ctx)); err != nil {
		return errs.Wrap(err, "remove unused content")
	}
	return nil
}

// Tidy removes what a failed operation left, once its lease has ended: a failure of the collection only delays it.
func (s *Store) Tidy(ctx context.Context) {
	ctx, b, err := s.backend(context.WithoutCancel(ctx))
	if err == nil {
		err = s.collect(ctx, b)
	}
	if err != nil {
		s.cfg.Log.Warn("left-overs of a failed operation stay for now", "error", err)
	}
}

func repositories(list []*record) int {
	seen := map[string]bool{}
	for _, r := range list {
		if !isUntagged(r.name) {
			seen[r.ref.Name()] = true
		}
	}
	return len(seen)
}

func familiar(list []*record) []string {
	var out []string
	for _, r := range list {
		if !isUntagged(r.name) {
			out = append(out, r.ref.Familiar())
		}
	}
	slices.Sort(out)
	return out
}

func shortList(list []string) string {
	var out []string
	for _, c := range list {
		out = append(out, ids.Short(c))
	}
	return strings.Join(out, ", ")
}

// Prune removes images that no container uses: those without name, or with the filter dangling=false all of them.
func (s *Store) Prune(ctx context.Context, filters model.Filters) (model.ImagePruneReport, error) {
	var report model.ImagePruneReport
	rest := model.Filters{}
	all := false
	for name, values := range filters {
		if name == "dangling" {
			all = slices.Contains(values, "false") || slices.Contains(values, "0")
			continue
		}
		if name != "until" && name != "label" && name != "label!" {
			return report, errs.New(errs.Invalid, "invalid filter '%s': prune takes dangling, label, label!, until", name)
		}
		rest[name] = values
	}
	list, err := s.List(ctx, ListOptions{Filters: rest, Containers: true})
	if err != nil || s.Empty() {
		return report, err
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return report, err
	}
	before := s.taken(ctx, b)
	idx, err := s.names(ctx, b)
	if err != nil {
		return report, err
	}
	for _, i := range list {
		if i.Containers > 0 || !all && !i.Dangling() {
			continue
		}
		out, err := s.removeRecords(ctx, b, idx.byID[i.ID])
		if err != nil {
			return report, err
		}
		report.Deleted = append(report.Deleted, out...)
	}
	err = s.collect(ctx, b)
	if report.Reclaimed = before - s.taken(ctx, b); report.Reclaimed < 0 {
		report.Reclaimed = 0
	}
	return report, err
}

// removeRecords is remove of a whole image without the collection.
func (s *Store) removeRecords(ctx context.Context, b *backend, gone []*record) ([]model.ImageDeletion, error) {
	var out []model.ImageDeletion
	labels := s.labels(ctx, gone[0].id)
	err := b.update(ctx, func(ctx context.Context) error {
		for _, r := range gone {
			if err := b.images.Delete(ctx, r.name); err != nil && !errdefs.IsNotFound(err) {
				return classify(err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range gone {
		if !isUntagged(r.name) {
			out = append(out, model.ImageDeletion{Untagged: r.ref.Familiar()})
			s.tell("untag", r.id, r.ref.Familiar(), labels)
		}
	}
	s.tell("delete", gone[0].id, "", labels)
	return append(out, model.ImageDeletion{Deleted: gone[0].id}), nil
}

// taken is what the whole store takes on disk.
func (s *Store) taken(ctx context.Context, b *backend) int64 {
	layers, blobs := s.disk(ctx, b)
	return layers + blobs
}

func (s *Store) disk(ctx context.Context, b *backend) (layers, blobs int64) {
	b.snap.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		if u, err := b.snap.Usage(ctx, i.Name); err == nil {
			layers += u.Size
		}
		return nil
	})
	b.content.Walk(ctx, func(i content.Info) error {
		blobs += i.Size
		return nil
	})
	parts, _ := b.content.ListStatuses(ctx) // what was fetched of blobs that are not whole
	for _, p := range parts {
		blobs += p.Offset
	}
	return layers, blobs
}

// DiskUsage accounts for everything in the store: images with their shared sizes, layers, blobs.
func (s *Store) DiskUsage(ctx context.Context) (model.ImageUsage, error) {
	var u model.ImageUsage
	list, err := s.List(ctx, ListOptions{SharedSize: true, Containers: true})
	if err != nil || s.Empty() {
		return u, err
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return u, err
	}
	u.Images = list
	u.LayersSize, u.ContentSize = s.disk(ctx, b)
	active, counted := int64(0), map[string]bool{}
	for _, i := range list {
		if i.Containers > 0 {
			u.ActiveImages++
			active += s.space(ctx, b, i, counted)
		}
	}
	u.Reclaimable = max(0, u.LayersSize+u.ContentSize-active)
	return u, nil
}

// space is what an image takes, packed and unpacked, without what was counted already.
func (s *Store) space(ctx context.Context, b *backend, i model.ImageSummary, counted map[string]bool) (n int64) {
	target := ocispec.Descriptor{MediaType: i.Target.MediaType, Digest: digest.Digest(i.Target.Digest), Size: i.Target.Size}
	d, err := s.describe(ctx, b, target, "")
	if err != nil {
		return 0
	}
	if sizes, ok := s.layerSizes(ctx, b, d); ok {
		for l, chain := range identity.ChainIDs(slices.Clone(d.diffIDs)) {
			if key := "unpacked " + chain.String(); !counted[key] {
				counted[key] = true
				n += sizes[l]
			}
		}
	}
	for _, desc := range append([]ocispec.Descriptor{target, d.manifest, d.config}, d.layers...) {
		if info, err := b.content.Info(ctx, desc.Digest); err == nil && !counted[desc.Digest.String()] {
			counted[desc.Digest.String()] = true
			n += info.Size
		}
	}
	return n
}
