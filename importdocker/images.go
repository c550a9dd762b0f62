package importdocker

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
)

// image is one image of Docker's.
type image struct {
	id    string   // as `docker images` showed it: the config's digest, or the target's in a containerd store
	names []string // familiar, with tag
	size  int64    // what makes it up, each layer counted
	pack  func() (*bundle, error)
}

// images lists the images: those with a name, those that containers were made from, and those without a name that no other
// was built upon. The others are steps of builds that the classic builder kept.
func (s *Source) images(used map[string]bool) (list []image, problems []Line) {
	for driver := range overlayDirs {
		l, p := s.classicImages(driver, used)
		list, problems = append(list, l...), append(problems, p...)
	}
	drivers, _ := os.ReadDir(filepath.Join(s.dir, "image"))
	for _, d := range drivers {
		if _, ok := overlayDirs[d.Name()]; !ok && d.IsDir() && s.hasImages(d.Name()) {
			problems = append(problems, Line{Kind: KindImage, Name: "driver " + d.Name(), Result: Failed,
				Detail: "images kept by this storage driver cannot be read; start that Docker, `docker save` them and `shoal load` them"})
		}
	}
	for _, st := range s.stores {
		l, p := st.images(used)
		list, problems = append(list, l...), append(problems, p...)
	}
	return list, problems
}

func (s *Source) hasImages(driver string) bool {
	entries, _ := os.ReadDir(filepath.Join(s.dir, "image", driver, "imagedb/content/sha256"))
	return len(entries) > 0
}

// classicImages lists what Docker's own store holds.
func (s *Source) classicImages(driver string, used map[string]bool) (list []image, problems []Line) {
	dir := filepath.Join(s.dir, "image", driver)
	var repos struct {
		Repositories map[string]map[string]digest.Digest
	}
	if err := readJSON(filepath.Join(dir, "repositories.json"), &repos); err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, Line{Kind: KindImage, Name: "names", Result: Failed, Detail: err.Error()})
	}
	names := map[string][]string{}
	for _, refs := range repos.Repositories {
		for _, ref := range slices.Sorted(maps.Keys(refs)) {
			id := refs[ref].String()
			if names[id] = append(names[id], ref); !isTag(ref) {
				names[id] = names[id][:len(names[id])-1] // a digest keeps the image, but is no name here
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "imagedb/content/sha256"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, Line{Kind: KindImage, Name: "store", Result: Failed, Detail: err.Error()})
	}
	parents := map[string]bool{}
	for _, e := range entries {
		if p, err := os.ReadFile(filepath.Join(dir, "imagedb/metadata/sha256", e.Name(), "parent")); err == nil {
			parents[string(p)] = true
		}
	}
	for _, e := range entries {
		id := "sha256:" + e.Name()
		tags, named := names[id]
		slices.Sort(tags)
		if !named && parents[id] && !used[id] {
			continue
		}
		img, err := s.classicImage(driver, id, tags)
		if err != nil {
			problems = append(problems, Line{Kind: KindImage, Name: cmp.Or(first(tags), id), Result: Failed, Detail: err.Error()})
			continue
		}
		list = append(list, img)
	}
	slices.SortFunc(list, func(a, b image) int {
		return cmp.Or(cmp.Compare(first(a.names), first(b.names)), cmp.Compare(a.id, b.id))
	})
	return list, problems
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// isTag says whether a key of repositories.json is a name with a tag, not one with a digest.
func isTag(ref string) bool {
	return !strings.Contains(ref, "@")
}

func (s *Source) classicImage(driver, id string, names []string) (image, error) {
	config, err := readBounded(filepath.Join(s.dir, "image", driver, "imagedb/content/sha256", id[len("sha256:"):]))
	if err != nil {
		return image{}, err
	}
	if got := digest.FromBytes(config); got.String() != id {
		return image{}, errs.New(errs.Damaged, "its configuration is damaged: the digest is %s", got)
	}
	var c ocispec.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return image{}, errs.New(errs.Damaged, "its configuration: %w", err)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return image{}, errs.New(errs.Damaged, "its configuration names layer %q: %w", d, err)
		}
	}
	img := image{id: id, names: names, pack: func() (*bundle, error) { return s.packClassic(driver, config, c.RootFS.DiffIDs) }}
	for _, chain := range chainIDs(c.RootFS.DiffIDs) {
		var size int64
		if err := readJSON(filepath.Join(s.dir, "image", driver, "layerdb/sha256", chain.Encoded(), "size"), &size); err != nil {
			return image{}, errs.New(errs.Damaged, "a layer is missing: %w", err)
		}
		img.size += size
	}
	return img, nil
}

// packClassic describes the image's archive. Its layers are not packed, for Docker's own store does not keep how they were:
// their digests are the diff IDs, and those and the image's ID stay what they were.
func (s *Source) packClassic(driver string, config []byte, diffIDs []digest.Digest) (*bundle, error) {
	b := &bundle{}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	cb := bytesBlob(ocispec.MediaTypeImageConfig, config)
	m.Config, b.blobs = cb.Descriptor, append(b.blobs, cb)
	for i, chain := range chainIDs(diffIDs) {
		l, err := s.layer(driver, chain, diffIDs[i])
		if err != nil {
			return nil, err
		}
		m.Layers, b.blobs = append(m.Layers, l.Descriptor), append(b.blobs, l)
	}
	if m.Layers == nil {
		m.Layers = []ocispec.Descriptor{}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	mb := bytesBlob(ocispec.MediaTypeImageManifest, data)
	b.blobs = append(b.blobs, mb)
	b.top = mb.Descriptor
	return b, nil
}
