package server

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// grace is how long a blob that no manifest names is kept for a client that was told it is here.
const grace = time.Hour

func (s *Server) blob(w http.ResponseWriter, r *http.Request, name, ref string) error {
	d, err := parseDigest(ref)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return s.sendBlob(w, r, name, d)
	case http.MethodDelete:
		return s.deleteBlob(w, r, name, d)
	}
	return notAllowed()
}

func (s *Server) hasBlob(name string, d digest.Digest) (ok bool, err error) {
	err = s.book.db.View(func(tx *bolt.Tx) error {
		repo := find(tx, name)
		ok = repo != nil && repo.hasBlob(d)
		return nil
	})
	return ok, err
}

// sendBlob answers whole, or the range that was asked for.
func (s *Server) sendBlob(w http.ResponseWriter, r *http.Request, name string, d digest.Digest) error {
	ok, err := s.hasBlob(name, d)
	if err != nil {
		return err
	}
	if !ok && s.cfg.Upstream != nil {
		if ok, err = s.bringBlob(r.Context(), name, d); err != nil {
			return err
		}
	}
	if !ok {
		return blobUnknown(d.String())
	}
	ctx, blobs, err := s.content(r.Context())
	if err != nil {
		return err
	}
	from, err := blobs.ReaderAt(ctx, ocispec.Descriptor{Digest: d})
	if errdefs.IsNotFound(err) {
		return blobUnknown(d.String())
	}
	if err != nil {
		return err
	}
	defer from.Close()
	s.touch(name, d)
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", `"`+d.String()+`"`)
	h.Set("Cache-Control", "max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(from, 0, from.Size()))
	return nil
}

func (s *Server) deleteBlob(w http.ResponseWriter, _ *http.Request, name string, d digest.Digest) error {
	err := s.book.db.Update(func(tx *bolt.Tx) error {
		repo := find(tx, name)
		if repo == nil || !repo.hasBlob(d) {
			return blobUnknown(d.String())
		}
		return repo.Bucket.Bucket(bucketBlobs).Delete([]byte(d))
	})
	if err != nil {
		return err
	}
	s.sweepSoon()
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount makes a blob of one repository one of another too. Without from any repository will do: the store has it once.
func (s *Server) mount(ctx context.Context, name, from string, d digest.Digest) (bool, error) {
	if from != "" && !nameOK.MatchString(from) {
		return false, nil
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	there := false
	err := s.book.db.View(func(tx *bolt.Tx) error {
		if from != "" {
			repo := find(tx, from)
			there = repo != nil && repo.hasBlob(d)
			return nil
		}
		repos := tx.Bucket(bucketRepos)
		return repos.ForEachBucket(func(k []byte) error {
			there = there || (&repo{repos.Bucket(k)}).hasBlob(d)
			return nil
		})
	})
	if err != nil || !there {
		return false, err
	}
	return true, s.addBlob(name, d)
}

// addBlob enters a blob that is in the store into a repository.
func (s *Server) addBlob(name string, d digest.Digest) error {
	now := s.cfg.Clock.Now()
	s.touch(name, d)
	return s.book.db.Update(func(tx *bolt.Tx) error {
		repo, err := findOrMake(tx, name)
		if err != nil {
			return err
		}
		return repo.putBlob(d, now)
	})
}

// sweepSoon removes, beside what goes on, what no repository has any more.
func (s *Server) sweepSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweeping {
		return
	}
	s.sweeping = true
	s.work.Go(func() {
		s.mu.Lock()
		s.sweeping = false // a delete from here on needs another sweep
		s.mu.Unlock()
		if err := s.tidy(context.Background()); err != nil {
			s.cfg.Log.Warn("the registry could not remove what is not used any more", "error", err)
		}
	})
}

// tidy forgets blobs that no manifest names and no client asked about lately, repositories with nothing in them, and gives
// the store back what no repository has.
func (s *Server) tidy(ctx context.Context) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if err := s.dropUnused(); err != nil {
		return err
	}
	if s.cfg.Store.Empty() {
		return nil
	}
	kept, err := s.cfg.Store.Kept(ctx, owner)
	if err != nil || len(kept) == 0 {
		return err
	}
	needed, err := s.book.everything()
	if err != nil {
		return err
	}
	var gone []digest.Digest
	for _, d := range kept {
		if !needed[d] {
			gone = append(gone, d)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return s.cfg.Store.GiveBack(ctx, owner, gone...)
}

func (s *Server) dropUnused() error {
	now := s.cfg.Clock.Now()
	return s.book.db.Update(func(tx *bolt.Tx) error {
		repos := tx.Bucket(bucketRepos)
		var empty [][]byte
		err := repos.ForEachBucket(func(name []byte) error {
			r := &repo{repos.Bucket(name)}
			used := r.used()
			blobs := r.Bucket.Bucket(bucketBlobs)
			var gone [][]byte
			left := 0
			blobs.ForEach(func(k, v []byte) error {
				if _, ok := used[digest.Digest(k)]; !ok && s.forgotten(string(name), digest.Digest(k), v, now) {
					gone = append(gone, append([]byte(nil), k...))
				} else {
					left++
				}
				return nil
			})
			for _, k := range gone {
				if err := blobs.Delete(k); err != nil {
					return err
				}
			}
			if k, _ := r.Bucket.Bucket(bucketManifests).Cursor().First(); k == nil && left == 0 {
				empty = append(empty, append([]byte(nil), name...))
			}
			return nil
		})
		for _, name := range empty {
			if err := repos.DeleteBucket(name); err != nil {
				return err
			}
		}
		return err
	})
}

// forgotten says whether nobody relies on the blob: it came, and was last asked about, more than the grace ago.
func (s *Server) forgotten(name string, d digest.Digest, came []byte, now time.Time) bool {
	at, err := time.Parse(time.RFC3339, string(came))
	if err == nil && now.Sub(at) < grace {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, ok := s.recent[name+"@"+d.String()]
	return !ok || now.Sub(asked) > grace
}
