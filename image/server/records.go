package server

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/shoalhq/shoal/lib/errs"
)

// The book: repos/NAME/{tags: tag → digest, manifests: digest → record, blobs: digest → time, referrers: subject, digest → }.
var (
	bucketRepos     = []byte("repos")
	bucketTags      = []byte("tags")
	bucketManifests = []byte("manifests")
	bucketBlobs     = []byte("blobs")
	bucketReferrers = []byte("referrers")
)

// manifestRecord is what the book knows of a manifest.
type manifestRecord struct {
	MediaType    string               `json:"mediaType"`
	Size         int64                `json:"size"`
	ArtifactType string               `json:"artifactType,omitempty"`
	Annotations  map[string]string    `json:"annotations,omitempty"`
	Subject      digest.Digest        `json:"subject,omitempty"`
	Blobs        []ocispec.Descriptor `json:"blobs,omitempty"`     // config and layers
	Manifests    []ocispec.Descriptor `json:"manifests,omitempty"` // of an index
}

func (m manifestRecord) descriptor(d digest.Digest) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: m.Size, ArtifactType: m.ArtifactType, Annotations: m.Annotations}
}

type book struct{ db *bolt.DB }

func openBook(dir string) (*book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "registry.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 2 * time.Second, FreelistType: bolt.FreelistMapType})
	if err == bolt.ErrTimeout {
		return nil, errs.New(errs.Conflict, "another process serves the registry in %s; stop it, or give this one another directory", dir)
	}
	if err != nil {
		return nil, errs.New(errs.Damaged, "%s cannot be opened: %w; if it is damaged, move it away and push the images again", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketRepos)
		return err
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return &book{db}, nil
}

// repo is one repository within a transaction; nil when there is none.
type repo struct{ *bolt.Bucket }

func find(tx *bolt.Tx, name string) *repo {
	if b := tx.Bucket(bucketRepos).Bucket([]byte(name)); b != nil {
		return &repo{b}
	}
	return nil
}

func findOrMake(tx *bolt.Tx, name string) (*repo, error) {
	b, err := tx.Bucket(bucketRepos).CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return nil, err
	}
	for _, sub := range [][]byte{bucketTags, bucketManifests, bucketBlobs, bucketReferrers} {
		if _, err := b.CreateBucketIfNotExists(sub); err != nil {
			return nil, err
		}
	}
	return &repo{b}, nil
}

func (r *repo) tag(name string) digest.Digest {
	return digest.Digest(r.Bucket.Bucket(bucketTags).Get([]byte(name)))
}

func (r *repo) manifest(d digest.Digest) (m manifestRecord, ok bool) {
	data := r.Bucket.Bucket(bucketManifests).Get([]byte(d))
	return m, data != nil && json.Unmarshal(data, &m) == nil
}

func (r *repo) hasBlob(d digest.Digest) bool {
	return r.Bucket.Bucket(bucketBlobs).Get([]byte(d)) != nil
}

func (r *repo) has(d digest.Digest) bool {
	return r.hasBlob(d) || r.Bucket.Bucket(bucketManifests).Get([]byte(d)) != nil
}

func (r *repo) putBlob(d digest.Digest, now time.Time) error {
	return r.Bucket.Bucket(bucketBlobs).Put([]byte(d), []byte(now.UTC().Format(time.RFC3339)))
}

func (r *repo) putManifest(d digest.Digest, m manifestRecord, tag string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := r.Bucket.Bucket(bucketManifests).Put([]byte(d), data); err != nil {
		return err
	}
	if m.Subject != "" {
		if err := r.Bucket.Bucket(bucketReferrers).Put(referrerKey(m.Subject, d), nil); err != nil {
			return err
		}
	}
	if tag == "" {
		return nil
	}
	return r.Bucket.Bucket(bucketTags).Put([]byte(tag), []byte(d))
}

func referrerKey(subject, d digest.Digest) []byte { return []byte(subject.String() + " " + d.String()) }

// dropManifest takes a manifest out with the tags that point to it.
func (r *repo) dropManifest(d digest.Digest, m manifestRecord) error {
	tags := r.Bucket.Bucket(bucketTags)
	var gone [][]byte
	tags.ForEach(func(k, v []byte) error {
		if bytes.Equal(v, []byte(d)) {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	})
	for _, k := range gone {
		if err := tags.Delete(k); err != nil {
			return err
		}
	}
	if m.Subject != "" {
		if err := r.Bucket.Bucket(bucketReferrers).Delete(referrerKey(m.Subject, d)); err != nil {
			return err
		}
	}
	return r.Bucket.Bucket(bucketManifests).Delete([]byte(d))
}

// referrers lists the manifests that name the subject.
func (r *repo) referrers(subject digest.Digest) []ocispec.Descriptor {
	out := []ocispec.Descriptor{}
	prefix := []byte(subject.String() + " ")
	c := r.Bucket.Bucket(bucketReferrers).Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		d := digest.Digest(k[len(prefix):])
		if m, ok := r.manifest(d); ok {
			out = append(out, m.descriptor(d))
		}
	}
	return out
}

// used are the blobs that the repository's manifests name.
func (r *repo) used() map[digest.Digest]ocispec.Descriptor {
	out := map[digest.Digest]ocispec.Descriptor{}
	r.Bucket.Bucket(bucketManifests).ForEach(func(_, v []byte) error {
		var m manifestRecord
		if json.Unmarshal(v, &m) == nil {
			for _, b := range m.Blobs {
				out[b.Digest] = b
			}
		}
		return nil
	})
	return out
}

// page lists the keys after last, at most n, of which those with nested buckets are repositories.
func page(b *bolt.Bucket, last string, n int) (names []string, more bool) {
	names = []string{}
	c := b.Cursor()
	k, _ := c.First()
	if last != "" {
		if k, _ = c.Seek([]byte(last)); k != nil && string(k) == last {
			k, _ = c.Next()
		}
	}
	for ; k != nil; k, _ = c.Next() {
		if len(names) == n {
			return names, true
		}
		names = append(names, string(k))
	}
	return names, false
}

// everything lists each blob and manifest that some repository has.
func (b *book) everything() (map[digest.Digest]bool, error) {
	out := map[digest.Digest]bool{}
	return out, b.db.View(func(tx *bolt.Tx) error {
		repos := tx.Bucket(bucketRepos)
		return repos.ForEachBucket(func(name []byte) error {
			for _, sub := range [][]byte{bucketBlobs, bucketManifests} {
				repos.Bucket(name).Bucket(sub).ForEach(func(k, _ []byte) error {
					out[digest.Digest(k)] = true
					return nil
				})
			}
			return nil
		})
	})
}
