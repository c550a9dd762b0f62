// Package importdocker reads what a stopped Docker left on disk (images, volumes, networks, containers) and gives it to an
// engine. It changes nothing of Docker's, except that with move the content of volumes goes; it must not know the
// engine's rooms: what it asks of them is Target.
//
// Sources of the formats: Docker's image/OVERLAY/{imagedb,layerdb} and repositories.json, containers/ID/*.json,
// volumes/metadata.db and network/files/local-kv.db (bbolt) as Docker 20.10 to 29 write them; containerd's metadata
// schema (core/metadata/buckets.go) and content store.
package importdocker

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// maxDocument bounds each JSON document that is read; the largest are hostconfig.json files with seccomp profiles.
const maxDocument = 16 << 20

// Source is a stopped Docker's data. No Docker can start on it until Close.
type Source struct {
	dir        string
	containerd []string // roots of containerds that may hold its images
	locks      []*os.File
	stores     []*containerdStore
}

// Open checks that dir is the data of a Docker that does not run. containerd is the root of the machine's containerd,
// which holds the images of a Docker that keeps them there; "" when there is none. Docker's own is looked at in any case.
func Open(dir, containerd string) (*Source, error) {
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) {
		return nil, errs.New(errs.Invalid, "%s is no absolute path; give Docker's data root as its `docker info` showed it (Docker Root Dir)", dir)
	}
	if err := looksLikeDocker(dir); err != nil {
		return nil, err
	}
	s := &Source{dir: dir, containerd: []string{filepath.Join(dir, "containerd/daemon")}}
	if containerd != "" {
		s.containerd = append(s.containerd, containerd)
	}
	for _, name := range []string{"volumes/metadata.db", "network/files/local-kv.db"} {
		if err := s.lock(filepath.Join(dir, name)); err != nil {
			s.Close()
			return nil, err
		}
	}
	for _, root := range s.containerd {
		store, err := openContainerd(root)
		if err != nil {
			s.Close()
			return nil, err
		}
		if store != nil {
			s.stores = append(s.stores, store)
		}
	}
	return s, nil
}

// Close lets Docker start again.
func (s *Source) Close() {
	for _, f := range s.locks {
		f.Close()
	}
	for _, st := range s.stores {
		st.close()
	}
}

var remapped = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)

func looksLikeDocker(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "there is no %s; say where Docker's data is with --from (`docker info` showed it as Docker Root Dir)", dir)
	}
	if err != nil {
		return errs.Wrap(err, "read Docker's data")
	}
	found := 0
	for _, e := range entries {
		if slices.Contains([]string{"containers", "image", "volumes", "network"}, e.Name()) {
			found++
		}
		if e.IsDir() && remapped.MatchString(e.Name()) {
			return errs.New(errs.Unsupported, "%s holds the data of a Docker with user namespaces (userns-remap, %s): its files belong to other users than they would here; "+
				"start that Docker without userns-remap or take things out with docker save and volume backups", dir, e.Name())
		}
	}
	if remapped.MatchString(filepath.Base(dir)) {
		return looksLikeDocker(filepath.Dir(dir))
	}
	if found < 2 {
		return errs.New(errs.Invalid, "%s is not Docker's data: it has no directories containers, image, volumes and network", dir)
	}
	return nil
}

// lock takes the lock that a running Docker holds on its databases, shared: it tells whether one runs, and keeps it from
// starting meanwhile.
func (s *Source) lock(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errs.Wrap(err, "open Docker's database")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errs.New(errs.Conflict, "a Docker runs on %s (it holds %s): stop it first, for example with `systemctl stop docker.socket docker`, and its containers with it", s.dir, path)
		}
		return errs.Wrap(err, "lock %s", path)
	}
	s.locks = append(s.locks, f)
	return nil
}

// readJSON reads a document of Docker's.
func readJSON(path string, into any) error {
	data, err := readBounded(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return errs.New(errs.Damaged, "%s: %w", path, err)
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxDocument {
		return nil, errs.New(errs.Damaged, "%s has %d bytes; at most %d make sense", path, st.Size(), maxDocument)
	}
	return os.ReadFile(path)
}
