package store

import (
	"context"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// record is a name and what it points to.
type record struct {
	name   string // full name, or untaggedPrefix and a digest
	ref    model.Reference
	target ocispec.Descriptor
	tagged time.Time
	id     string // image ID for this host
}

// index is all names, read once after each change. It is never changed once made.
type index struct {
	byName   map[string]*record
	byTarget map[string][]*record
	byID     map[string][]*record
	ids      []string // sorted
}

// names gives the index, reading it if something changed.
func (s *Store) names(ctx context.Context, b *backend) (*index, error) {
	s.mu.Lock()
	idx, gen := s.idx, s.gen
	s.mu.Unlock()
	if idx != nil {
		return idx, nil
	}
	list, err := b.images.List(ctx)
	if err != nil {
		return nil, classify(err)
	}
	idx = &index{byName: map[string]*record{}, byTarget: map[string][]*record{}, byID: map[string][]*record{}}
	for _, i := range list {
		r := &record{name: i.Name, target: i.Target, tagged: i.UpdatedAt.UTC(), id: i.Labels[imageIDLabel]}
		if !isUntagged(i.Name) {
			if r.ref, err = model.ParseReference(i.Name); err != nil {
				s.cfg.Log.Warn("image record with an impossible name is left out", "name", i.Name, "error", err)
				continue
			}
		}
		if r.id == "" {
			d, err := s.describe(ctx, b, i.Target, "")
			if err != nil {
				s.cfg.Log.Warn("damaged image is left out", "name", i.Name, "error", err)
				continue
			}
			r.id = d.image.ID
		}
		idx.add(r)
	}
	for id := range idx.byID {
		idx.ids = append(idx.ids, id)
	}
	slices.Sort(idx.ids)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen == gen {
		s.idx = idx
	}
	return idx, nil
}

func (x *index) add(r *record) {
	x.byName[r.name] = r
	x.byTarget[r.target.Digest.String()] = append(x.byTarget[r.target.Digest.String()], r)
	x.byID[r.id] = append(x.byID[r.id], r)
}

// found is what a reference led to.
type found struct {
	ref    string          // as asked
	named  *record         // set when it was a name
	byID   bool            // it was an ID or the beginning of one
	target *record         // any record of the image
	parsed model.Reference // when named
}

// find looks a reference up: a whole ID, a name, a name with digest, or the beginning of an ID, in this order.
func (x *index) find(ref string) (found, error) {
	f := found{ref: ref}
	forms := idForms(ref)
	for _, id := range forms {
		if !model.ValidDigest(id) {
			continue
		}
		if list := x.byID[id]; len(list) > 0 {
			f.byID, f.target = true, list[0]
			return f, nil
		}
		if list := x.byTarget[id]; len(list) > 0 {
			f.byID, f.target = true, list[0]
			return f, nil
		}
		return f, notFound(ref)
	}
	parsed, err := model.ParseReference(ref)
	if err == nil {
		f.parsed = parsed
		if r := x.lookup(parsed); r != nil {
			f.named, f.target = r, r
			return f, nil
		}
	}
	var prefix []string
	for _, id := range forms {
		prefix = append(prefix, x.prefix(id)...)
	}
	switch {
	case len(prefix) == 1:
		f.byID, f.target = true, x.byID[prefix[0]][0]
		return f, nil
	case len(prefix) > 1:
		return f, errs.New(errs.Invalid, "%q is the beginning of %d image IDs (%s, %s, ...): give more characters", ref, len(prefix), prefix[0], prefix[1])
	case err != nil:
		return f, err
	}
	return f, notFound(ref)
}

func (x *index) lookup(ref model.Reference) *record {
	if ref.Digest == "" {
		return x.byName[ref.String()]
	}
	var tagged *record
	for _, r := range x.byTarget[ref.Digest] {
		switch {
		case r.ref.Name() != ref.Name() || ref.Tag != "" && r.ref.Tag != "" && r.ref.Tag != ref.Tag:
		case r.ref.Tag == ref.Tag: // a name by digest is its own: who removes it means no tag
			return r
		case tagged == nil:
			tagged = r
		}
	}
	return tagged
}

// algorithms are those of digests, the usual one first.
var algorithms = []string{"sha256", "sha512", "sha384"}

// idForms are the IDs, or beginnings of IDs, that a reference may mean: people leave the algorithm out.
func idForms(ref string) (forms []string) {
	for _, a := range algorithms {
		if strings.HasPrefix(ref, a+":") {
			return []string{ref}
		}
		forms = append(forms, a+":"+ref)
	}
	return forms
}

// prefix gives the IDs that start with id, at most two more than one.
func (x *index) prefix(id string) []string {
	_, hex, _ := strings.Cut(id, ":")
	if hex == "" || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil
	}
	at, _ := slices.BinarySearch(x.ids, id)
	end := at
	for end < len(x.ids) && end < at+3 && strings.HasPrefix(x.ids[end], id) {
		end++
	}
	return x.ids[at:end]
}

func notFound(ref string) error {
	return errs.New(errs.NotFound, "No such image: %s: pull it, load it from an archive, or see the ones that are here with `shoal images`", ref)
}

// fill adds what the names say to what content says.
func (x *index) fill(img model.Image) model.Image {
	for _, r := range x.byID[img.ID] {
		if r.tagged.After(img.Origin.LastTagged) && !isUntagged(r.name) {
			img.Origin.LastTagged = r.tagged
		}
		switch {
		case isUntagged(r.name):
		case r.ref.Digest != "":
			img.RepoDigests = append(img.RepoDigests, r.ref.FamiliarName()+"@"+r.ref.Digest)
		default:
			img.RepoTags = append(img.RepoTags, r.ref.Familiar())
		}
	}
	slices.Sort(img.RepoTags)
	slices.Sort(img.RepoDigests)
	img.RepoTags, img.RepoDigests = slices.Compact(img.RepoTags), slices.Compact(img.RepoDigests)
	return img
}

// Resolve finds the image that ref means: an ID or the beginning of one, a name with tag or digest. Platform is "" for
// this host's, else "os/arch[/variant]". It is NotFound when there is none, and says what to do.
func (s *Store) Resolve(ctx context.Context, ref, platform string) (model.Image, error) {
	if s.Empty() {
		if _, err := model.ParseReference(ref); err != nil && !slices.ContainsFunc(idForms(ref), model.ValidDigest) {
			return model.Image{}, err
		}
		return model.Image{}, notFound(ref)
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return model.Image{}, err
	}
	img, _, err := s.resolve(ctx, b, ref, platform)
	if err != nil {
		return model.Image{}, err
	}
	img.Size = s.size(ctx, b, img.ID)
	return img, nil
}

func (s *Store) resolve(ctx context.Context, b *backend, ref, platform string) (model.Image, *described, error) {
	idx, err := s.names(ctx, b)
	if err != nil {
		return model.Image{}, nil, err
	}
	f, err := idx.find(ref)
	if err != nil {
		return model.Image{}, nil, err
	}
	d, err := s.describe(ctx, b, f.target.target, platform)
	if errs.Is(err, errs.NotFound) {
		if platform == "" {
			return model.Image{}, nil, errs.New(errs.Damaged, "image %s: part of its content is missing: %w; pull or load it again", ref, err)
		}
		return model.Image{}, nil, errs.New(errs.NotFound, "image %s is here, but not for platform %s: %w", ref, platform, err)
	}
	if err != nil {
		return model.Image{}, nil, errs.Wrap(err, "image %s", ref)
	}
	img := idx.fill(d.image)
	img.History = s.steps(ctx, b, d)
	if img.ID != f.target.id { // another platform of an index: the names belong to it as well
		host := d.image
		host.ID = f.target.id
		host = idx.fill(host)
		img.RepoTags, img.RepoDigests = host.RepoTags, host.RepoDigests
	}
	return img, d, nil
}

// Named is a name and what it points to; Name is empty for an image without name.
type Named struct {
	Name   string // in full
	Target ocispec.Descriptor
	ID     string // image ID for this host
}

// Targets gives what ref means, for those who move content: the one image of an ID, name or name with digest, or all tags
// of a repository when ref is a name without tag.
func (s *Store) Targets(ctx context.Context, ref string) ([]Named, error) {
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
	if repo, err := model.ParseRepository(ref); err == nil && repo.Tag == "" && repo.Digest == "" {
		var out []Named
		for _, r := range idx.byName {
			if !isUntagged(r.name) && r.ref.Digest == "" && r.ref.Name() == repo.Name() {
				out = append(out, Named{r.name, r.target, r.id})
			}
		}
		slices.SortFunc(out, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
		if len(out) > 0 {
			return out, nil
		}
	}
	f, err := idx.find(ref)
	if err != nil {
		return nil, err
	}
	n := Named{"", f.target.target, f.target.id}
	if f.named != nil {
		n.Name = f.named.name
	}
	return []Named{n}, nil
}
