package importdocker

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/shoalhq/shoal/lib/errs"
)

// namespace is where Docker keeps its things in containerd, and snapshotter the only one whose layers are directories.
const (
	namespace   = "moby"
	snapshotter = "overlayfs"
)

// containerdStore is the data of a containerd.
type containerdStore struct {
	root string
	db   *bbolt.DB
}

// openContainerd opens the data of a containerd; nil when there is none or Docker keeps nothing there. The containerd of the
// machine may run: it serves others, too.
func openContainerd(root string) (*containerdStore, error) {
	db, err := openSnapshot(filepath.Join(root, "io.containerd.metadata.v1.bolt/meta.db"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := &containerdStore{root, db}
	if empty := true; db.View(func(tx *bbolt.Tx) error {
		empty = bucket(tx, "v1", namespace, "images") == nil
		return nil
	}) != nil || empty {
		st.close()
		return nil, nil
	}
	return st, nil
}

// lockWait is how long a database may be held by somebody else before a copy of it is read.
const lockWait = 200 * time.Millisecond

// openSnapshot opens a database to read, or a copy of it when another process holds it. Databases are changed by adding
// pages and then switching to them, so a copy is whole unless that happened twice meanwhile, which the check finds.
func openSnapshot(path string) (*bbolt.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err == nil || !errors.Is(err, bbolt.ErrTimeout) {
		return db, errs.Wrap(err, "open %s", path)
	}
	dir, err := os.MkdirTemp("", "shoal-import-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // what is open stays readable
	dst := filepath.Join(dir, "db")
	if err := copyFile(dst, path); err != nil {
		return nil, errs.Wrap(err, "copy %s", path)
	}
	if db, err = bbolt.Open(dst, 0, &bbolt.Options{ReadOnly: true}); err == nil {
		err = db.View(func(tx *bbolt.Tx) error {
			var broken error
			for err := range tx.Check() {
				broken = err
			}
			return broken
		})
		if err == nil {
			return db, nil
		}
		db.Close()
	}
	return nil, errs.New(errs.Conflict, "%s changes while it is read (%w): stop containerd meanwhile, for example with `systemctl stop containerd`", path, err)
}

func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (st *containerdStore) close() { st.db.Close() }

// bucket follows a path of buckets.
func bucket(tx *bbolt.Tx, path ...string) *bbolt.Bucket {
	b := tx.Bucket([]byte(path[0]))
	for _, p := range path[1:] {
		if b == nil {
			return nil
		}
		b = b.Bucket([]byte(p))
	}
	return b
}

// What Docker calls an image that has no name, and the label by which the classic builder says what a step was built upon.
const (
	dangling    = "moby-dangling@"
	parentLabel = "org.mobyproject.image.parent"
)

// images lists the images, those of several names once, without the steps of builds that the classic builder kept; used are
// the images of containers.
func (st *containerdStore) images(used map[string]bool) (list []image, problems []Line) {
	tops := map[digest.Digest]ocispec.Descriptor{}
	names := map[digest.Digest][]string{}
	named, parents := map[digest.Digest]bool{}, map[string]bool{}
	err := st.db.View(func(tx *bbolt.Tx) error {
		b := bucket(tx, "v1", namespace, "images")
		return b.ForEachBucket(func(name []byte) error {
			t := b.Bucket(name).Bucket([]byte("target"))
			if t == nil {
				return nil
			}
			size, _ := binary.Varint(t.Get([]byte("size")))
			d := ocispec.Descriptor{Digest: digest.Digest(t.Get([]byte("digest"))), MediaType: string(t.Get([]byte("mediatype"))), Size: size}
			tops[d.Digest] = d
			if !strings.HasPrefix(string(name), dangling) {
				named[d.Digest] = true
			}
			if labels := b.Bucket(name).Bucket([]byte("labels")); labels != nil {
				parents[string(labels.Get([]byte(parentLabel)))] = true
			}
			if n := string(name); isTag(n) {
				names[d.Digest] = append(names[d.Digest], familiar(n))
			}
			return nil
		})
	})
	if err != nil {
		return nil, []Line{{Kind: KindImage, Name: "store", Result: Failed, Detail: err.Error()}}
	}
	for id, top := range tops {
		if !named[id] && parents[id.String()] && !used[id.String()] {
			continue
		}
		slices.Sort(names[id])
		b := &bundle{}
		if err := id.Validate(); err != nil {
			problems = append(problems, Line{Kind: KindImage, Name: id.String(), Result: Failed, Detail: err.Error()})
			continue
		}
		if err := st.collect(b, top, 0); err != nil {
			problems = append(problems, Line{Kind: KindImage, Name: cmp.Or(first(names[id]), id.String()), Result: Failed, Detail: err.Error()})
			continue
		}
		b.top = top
		img := image{id: id.String(), names: names[id], pack: func() (*bundle, error) { return b, nil }}
		for _, bl := range b.blobs {
			img.size += bl.Size
		}
		list = append(list, img)
	}
	slices.SortFunc(list, func(a, b image) int { return strings.Compare(first(a.names)+a.id, first(b.names)+b.id) })
	return list, problems
}

// familiar is a full name as people write it.
func familiar(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/library/"), "docker.io/")
}

// maxIndexDepth bounds indexes within each other.
const maxIndexDepth = 4

// collect adds what a descriptor points to and is there. Of an image for several platforms only some may have been pulled.
func (st *containerdStore) collect(b *bundle, d ocispec.Descriptor, depth int) error {
	path := filepath.Join(st.root, "io.containerd.content.v1.content/blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
	fi, err := os.Stat(path)
	if err != nil {
		return errs.New(errs.Damaged, "content is missing: %w", err)
	}
	d.Size = fi.Size()
	b.blobs = append(b.blobs, blob{d, func(w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	}})
	var doc struct {
		Manifests []ocispec.Descriptor
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
	}
	if !strings.Contains(d.MediaType, "index") && !strings.Contains(d.MediaType, "manifest") {
		return nil
	}
	data, err := readBounded(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return errs.New(errs.Damaged, "%s: %w", path, err)
	}
	if depth > maxIndexDepth {
		return errs.New(errs.Damaged, "indexes are more than %d deep", maxIndexDepth)
	}
	for _, m := range doc.Manifests {
		if m.Digest.Validate() == nil && st.whole(m, depth) {
			if err := st.collect(b, m, depth+1); err != nil {
				return err
			}
		}
	}
	children := doc.Layers
	if doc.Config != nil {
		children = append(children, *doc.Config)
	}
	for _, c := range children {
		if err := c.Digest.Validate(); err != nil {
			return errs.New(errs.Damaged, "%s: digest %q: %w", path, c.Digest, err)
		}
		c.MediaType = "" // no document that is read here
		if err := st.collect(b, c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// whole says whether a platform's image is there with all that belongs to it.
func (st *containerdStore) whole(m ocispec.Descriptor, depth int) bool {
	return st.collect(&bundle{}, m, depth+1) == nil
}

// writable is the directory of a container's changes; "" when the store does not know the container.
func (st *containerdStore) writable(container string) (string, error) {
	name := ""
	st.db.View(func(tx *bbolt.Tx) error {
		if b := bucket(tx, "v1", namespace, "snapshots", snapshotter, container); b != nil {
			name = string(b.Get([]byte("name")))
		}
		return nil
	})
	if name == "" {
		return "", nil
	}
	root := filepath.Join(st.root, "io.containerd.snapshotter.v1."+snapshotter)
	db, err := openSnapshot(filepath.Join(root, "metadata.db"))
	if err != nil {
		return "", err
	}
	defer db.Close()
	dir := ""
	db.View(func(tx *bbolt.Tx) error {
		if b := bucket(tx, "v1", "snapshots", name); b != nil {
			id, _ := binary.Uvarint(b.Get([]byte("id")))
			dir = filepath.Join(root, "snapshots", strconv.FormatUint(id, 10), "fs")
		}
		return nil
	})
	if dir == "" {
		return "", errs.New(errs.Damaged, "containerd has no record of the container's changes (%s)", name)
	}
	return dir, nil
}
