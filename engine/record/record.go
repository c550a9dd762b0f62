// Package record keeps the containers' records on disk, so that a crash or a power cut at any instruction costs at most
// the newest change. It must not know what the records mean.
//
// A container has a directory ROOT/containers/ID, and one on tmpfs, EXECROOT/containers/ID:
//
//	container.json  what was asked and decided: written by create, rename, update; durable
//	state.json      what became of it: written often and without waiting for the disk. When a power cut loses it, the
//	                container is found as ended with an unknown exit code; the container itself is never lost.
//	network.json    its addresses and ports, always on tmpfs: they mean nothing after a restart of the machine
//	upper, work     the writable layer
//
// A container that is removed at its end has all its records on tmpfs, because it must not outlive a restart of the
// machine anyway. A record that cannot be read is set aside whole, as ROOT/damaged/ID.
//
// Making a directory on disk can take a millisecond (ext4 looks for a good place for each), so that a few directories
// with empty writable layers are kept ready, and a create renames one; those of containers that wrote nothing are used
// again.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/model"
)

// version is the format of the files; files of a newer one are refused, not damaged.
const version = 1

const (
	specFile   = "container.json"
	stateFile  = "state.json"
	netFile    = "network.json"
	removeMark = ".removing-"
	blankMark  = ".blank-"
	// UpperDir and WorkDir are the directories of the writable layer inside a container's directory.
	UpperDir = "upper"
	WorkDir  = "work"
	// NamesDir is where, in the exec root, the files for name resolution are. Containers write to them, so that they are
	// kept apart from all else: on a small tmpfs of their own where the daemon has mounted one.
	NamesDir = "names"
)

// Store is the records of one daemon.
type Store struct {
	dir     string // ROOT/containers
	damaged string // ROOT/damaged
	run     string // EXECROOT/containers
	// Log is told what Load repairs by itself.
	Log     *slog.Logger
	names   string // EXECROOT/names
	blank   chan string
	filling sync.Mutex // one goroutine makes blanks at a time
	work    sync.WaitGroup
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
	Version int         `json:"version"`
	State   model.State `json:"state"`
}

// Open makes the directories.
func Open(root, execRoot string) (*Store, error) {
	s := &Store{Log: slog.Default(), dir: filepath.Join(root, "containers"), damaged: filepath.Join(root, "damaged"),
		run: filepath.Join(execRoot, "containers"), names: filepath.Join(execRoot, NamesDir), blank: make(chan string, blanksKept)}
	for _, dir := range []string{s.dir, s.run, s.names} {
		if err := os.MkdirAll(dir, 0o710); err != nil {
			return nil, errs.Wrap(err, "open the container records")
		}
	}
	return s, nil
}

// Close waits for work in the background.
func (s *Store) Close() { s.work.Wait() }

// Dir is a container's directory.
func (s *Store) Dir(id string) string { return filepath.Join(s.dir, id) }

// RunDir is a container's directory on tmpfs; MakeRunDir makes it, after a restart of the machine again.
func (s *Store) RunDir(id string) string { return filepath.Join(s.run, id) }

// MakeRunDir makes RunDir. It is no error when it is there.
func (s *Store) MakeRunDir(id string) error {
	if err := os.Mkdir(s.RunDir(id), 0o710); err != nil && !errors.Is(err, fs.ErrExist) {
		return errs.Wrap(err, "make the container's directory")
	}
	return nil
}

// MakeNamesDir makes a directory for the files that are bound into the container for name resolution, with disk in its
// directory on disk: for when containers have filled the place where it usually is.
func (s *Store) MakeNamesDir(id string, disk bool) (string, error) {
	dir := filepath.Join(s.names, id)
	if disk {
		dir = filepath.Join(s.Dir(id), NamesDir)
	}
	if err := os.Mkdir(dir, 0o710); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", errs.Wrap(err, "make the directory for name resolution")
	}
	return dir, nil
}

// home is where a container's records are.
func (s *Store) home(c *model.Container) string {
	if c.Spec.Options.AutoRemove {
		return s.RunDir(c.ID)
	}
	return s.Dir(c.ID)
}

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
			s.work.Go(func() { openat.RemoveAll(filepath.Join(s.dir, id)) })
			continue
		}
		if strings.HasPrefix(id, blankMark) {
			s.adopt(filepath.Join(s.dir, id))
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
				s.work.Go(func() {
					if dispose, err := s.Remove(id); err == nil {
						dispose()
					}
				})
			default:
				bad = append(bad, s.setAside(id, err))
			}
		})
	}
	wg.Wait()
	s.clearRun(loaded)
	s.refill()
	return loaded, bad, nil
}

// clearRun removes directories on tmpfs whose containers are gone.
func (s *Store) clearRun(loaded []*model.Container) {
	known := make(map[string]bool, len(loaded))
	for _, c := range loaded {
		known[c.ID] = true
	}
	for _, dir := range []string{s.run, s.names} {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if id := entry.Name(); ids.Valid(id) && !known[id] {
				os.RemoveAll(filepath.Join(dir, id))
			}
		}
	}
}

// errHalfMade is a directory whose create was cut off before the record was there.
var errHalfMade = errors.New("no record")

func (s *Store) read(id string) (*model.Container, error) {
	var rec specRecord
	err := atomicfile.ReadJSON(filepath.Join(s.Dir(id), specFile), &rec)
	if errors.Is(err, fs.ErrNotExist) {
		err = atomicfile.ReadJSON(filepath.Join(s.RunDir(id), specFile), &rec)
	}
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
	atomicfile.ReadJSON(filepath.Join(s.RunDir(c.ID), netFile), &c.Network)
	err := atomicfile.ReadJSON(filepath.Join(s.home(c), stateFile), &rec)
	switch {
	case err == nil && rec.Version == version:
		c.State = rec.State
	case errors.Is(err, fs.ErrNotExist):
		c.State = model.State{Status: model.StatusCreated}
	default:
		s.Log.Warn("the state of a container cannot be read; it counts as ended with an exit code that is not known", "container", c.ID,
			"file", filepath.Join(s.home(c), stateFile), "reason", err)
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

// Create makes a container's directories with an empty writable layer and returns the one on disk.
func (s *Store) Create(id string) (string, error) {
	dir := s.Dir(id)
	if err := s.MakeRunDir(id); err != nil {
		return "", err
	}
	select {
	case blank := <-s.blank:
		s.refill()
		if os.Rename(blank, dir) == nil {
			return dir, nil
		}
	default:
		s.refill()
	}
	if err := makeBlank(dir); err != nil {
		os.Remove(s.RunDir(id))
		return "", errs.Wrap(err, "make the container's writable layer")
	}
	return dir, nil
}

// SaveNew writes the first record of a container: everything but its state.
func (s *Store) SaveNew(c *model.Container, durable bool) error {
	if err := s.SaveSpec(c, durable); err != nil || !durable {
		return err
	}
	return atomicfile.SyncDir(s.dir) // the container's directory is new, too
}

// SaveSpec writes anew everything of the container but its state.
func (s *Store) SaveSpec(c *model.Container, durable bool) error {
	rec := specRecord{Version: version, Container: *c}
	rec.Container.State, rec.Container.Network = model.State{}, model.NetworkState{}
	return s.write(s.home(c), specFile, &rec, durable)
}

// SaveState writes the container's state.
func (s *Store) SaveState(c *model.Container, durable bool) error {
	return s.write(s.home(c), stateFile, &stateRecord{Version: version, State: c.State}, durable)
}

// SaveNetwork writes the container's addresses and ports.
func (s *Store) SaveNetwork(c *model.Container) error {
	return s.write(s.RunDir(c.ID), netFile, &c.Network, false)
}

func (s *Store) write(dir, name string, v any, durable bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return errs.Wrap(err, "encode the record %s of container %s", name, ids.Short(filepath.Base(dir)))
	}
	err = atomicfile.Write(filepath.Join(dir, name), data, 0o600, atomicfile.Durability(durable))
	return errs.Wrap(err, "record container %s", ids.Short(filepath.Base(dir)))
}

// Remove takes away a container's record, after which there is no such container, also after a crash. What else is left
// of it, dispose removes; nobody needs to wait for that.
func (s *Store) Remove(id string) (dispose func() error, err error) {
	os.RemoveAll(s.RunDir(id))
	gone := filepath.Join(s.dir, removeMark+id)
	if err := os.Rename(s.Dir(id), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errs.Wrap(err, "remove container %s", ids.Short(id))
	}
	return func() error {
		os.RemoveAll(filepath.Join(s.names, id))
		if s.recycle(gone) {
			return nil
		}
		return errs.Wrap(openat.RemoveAll(gone), "remove the files of container %s", ids.Short(id))
	}, nil
}
