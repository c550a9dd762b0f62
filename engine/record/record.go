// Package record keeps the containers' records on disk, so that a crash or a power cut at any instruction costs at most
// the newest change. It must not know what the records mean.
//
// A container has a directory ROOT/containers/ID:
//
//	container.json  what was asked and decided: written by create, rename, update; durable unless the container is
//	                removed at its end anyway
//	state.json      what became of it: written often and without waiting for the disk. When a power cut loses it, the
//	                container is found as ended with an unknown exit code; the container itself is never lost.
//	upper, work     the writable layer
//	hosts, hostname, resolv.conf, logs
//
// A record that cannot be read is set aside whole, as ROOT/damaged/ID.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// version is the format of the files; files of a newer one are refused, not damaged.
const version = 1

const (
	specFile   = "container.json"
	stateFile  = "state.json"
	removeMark = ".removing-"
	// UpperDir and WorkDir are the directories of the writable layer inside a container's directory.
	UpperDir = "upper"
	WorkDir  = "work"
)

// Store is the records of one daemon.
type Store struct {
	dir     string // ROOT/containers
	damaged string // ROOT/damaged
}

// Damage names a record that was set aside.
type Damage struct {
	ID     string
	Now    string // where it is now
	Reason error
}

type specRecord struct {
	Version   int             `json:"version"`
	Container model.Container `json:"container"`
}

type stateRecord struct {
	Version int                `json:"version"`
	State   model.State        `json:"state"`
	Network model.NetworkState `json:"network"`
}

// Open makes the directories.
func Open(root string) (*Store, error) {
	s := &Store{dir: filepath.Join(root, "containers"), damaged: filepath.Join(root, "damaged")}
	if err := os.MkdirAll(s.dir, 0o710); err != nil {
		return nil, errs.Wrap(err, "open the container records")
	}
	return s, nil
}

// Dir is a container's directory.
func (s *Store) Dir(id string) string { return filepath.Join(s.dir, id) }

// Load reads every record, in parallel. What cannot be read is set aside; leftovers of half removals go.
func (s *Store) Load() ([]*model.Container, []Damage, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, errs.Wrap(err, "read the container records")
	}
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		loaded []*model.Container
		bad    []Damage
		slots  = make(chan struct{}, 4*runtime.NumCPU())
	)
	for _, entry := range entries {
		id := entry.Name()
		if strings.HasPrefix(id, removeMark) {
			go os.RemoveAll(filepath.Join(s.dir, id))
			continue
		}
		if !ids.Valid(id) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c, err := s.read(id)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				loaded = append(loaded, c)
			case errors.Is(err, errHalfMade):
				os.RemoveAll(s.Dir(id))
			default:
				bad = append(bad, s.setAside(id, err))
			}
		})
	}
	wg.Wait()
	return loaded, bad, nil
}

// errHalfMade is a directory whose create was cut off before the record was there.
var errHalfMade = errors.New("no record")

func (s *Store) read(id string) (*model.Container, error) {
	var rec specRecord
	err := atomicfile.ReadJSON(filepath.Join(s.Dir(id), specFile), &rec)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errHalfMade
	}
	if err != nil {
		return nil, err
	}
	if rec.Version != version {
		return nil, fmt.Errorf("the record has format %d, this daemon knows format %d", rec.Version, version)
	}
	c := &rec.Container
	if c.ID != id {
		return nil, fmt.Errorf("the record in directory %s is of container %q", id, c.ID)
	}
	if c.Name == "" {
		return nil, errors.New("the record has no container name")
	}
	s.readState(c)
	return c, nil
}

// readState fills in the state. Losing it must not lose the container.
func (s *Store) readState(c *model.Container) {
	var rec stateRecord
	err := atomicfile.ReadJSON(filepath.Join(s.Dir(c.ID), stateFile), &rec)
	switch {
	case err == nil && rec.Version == version:
		c.State, c.Network = rec.State, rec.Network
	case errors.Is(err, fs.ErrNotExist):
		c.State = model.State{Status: model.StatusCreated}
	default:
		c.State = model.State{Status: model.StatusExited, ExitCode: errs.ExitUnknownRestart, FinishedAt: time.Now().UTC(),
			Error: "the record of the container's state was lost, for example in a power cut; its exit code is not known"}
	}
}

func (s *Store) setAside(id string, reason error) Damage {
	d := Damage{ID: id, Now: filepath.Join(s.damaged, id), Reason: reason}
	if err := os.MkdirAll(s.damaged, 0o700); err == nil {
		err = os.Rename(s.Dir(id), d.Now)
		if errors.Is(err, fs.ErrExist) { // the same container twice: keep both
			d.Now += fmt.Sprintf("-%d", time.Now().Unix())
			err = os.Rename(s.Dir(id), d.Now)
		}
		if err != nil {
			d.Now, d.Reason = s.Dir(id), fmt.Errorf("%w (setting it aside failed too: %w)", reason, err)
		}
	}
	return d
}

// Create makes a container's directory with an empty writable layer and returns the directory.
func (s *Store) Create(id string) (string, error) {
	dir := s.Dir(id)
	if err := os.Mkdir(dir, 0o710); err != nil {
		return "", errs.Wrap(err, "make the container's directory")
	}
	for _, sub := range []struct {
		name string
		mode fs.FileMode
	}{{UpperDir, 0o755}, {WorkDir, 0o700}} {
		if err := os.Mkdir(filepath.Join(dir, sub.name), sub.mode); err != nil {
			os.RemoveAll(dir)
			return "", errs.Wrap(err, "make the container's writable layer")
		}
	}
	// The mode of upper is the mode of / in the container; the umask must not decide it.
	if err := os.Chmod(filepath.Join(dir, UpperDir), 0o755); err != nil {
		os.RemoveAll(dir)
		return "", errs.Wrap(err, "make the container's writable layer")
	}
	return dir, nil
}

// SaveSpec writes everything of the container but its state.
func (s *Store) SaveSpec(c *model.Container, durable bool) error {
	rec := specRecord{Version: version, Container: *c}
	rec.Container.State, rec.Container.Network = model.State{}, model.NetworkState{}
	if err := s.write(c.ID, specFile, &rec, durable); err != nil {
		return err
	}
	if durable {
		return atomicfile.SyncDir(s.dir)
	}
	return nil
}

// SaveState writes the container's state.
func (s *Store) SaveState(c *model.Container, durable bool) error {
	return s.write(c.ID, stateFile, &stateRecord{Version: version, State: c.State, Network: c.Network}, durable)
}

func (s *Store) write(id, name string, v any, durable bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return errs.Wrap(err, "encode the record of container %s", ids.Short(id))
	}
	err = atomicfile.Write(filepath.Join(s.Dir(id), name), data, 0o600, atomicfile.Durability(durable))
	return errs.Wrap(err, "record container %s", ids.Short(id))
}

// Remove takes away the container's directory. Its name goes at once, so that a crash leaves nothing that looks like a
// container.
func (s *Store) Remove(id string) error {
	gone := filepath.Join(s.dir, removeMark+id)
	if err := os.Rename(s.Dir(id), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(err, "remove container %s", ids.Short(id))
	}
	return errs.Wrap(os.RemoveAll(gone), "remove the files of container %s", ids.Short(id))
}
