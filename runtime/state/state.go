// Package state keeps what must be known of a container between two invocations of the runtime: a directory per
// container below the runtime's root, with state.json, config.json as it
// was at create, the start socket and a lock. It must not start, signal or
// inspect processes beyond asking whether a pid is still the same process.
//
// A container's directory exists from before anything else of it does until after everything else is gone, so whatever
// a crash leaves behind has its name there. The directory lies on tmpfs (/run): writes are atomic but not synced.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
)

// Version is the version of state.json. A reader refuses newer ones.
const Version = 1

// Record is state.json.
type Record struct {
	Version   int             `json:"version"`
	ID        string          `json:"id"`
	Bundle    string          `json:"bundle"`
	Created   time.Time       `json:"created"`
	Owner     uint32          `json:"owner"`              // uid that created it
	Pid       int             `json:"pid,omitempty"`      // 0 until init exists
	PidStart  uint64          `json:"pidStart,omitempty"` // tells processes with the same pid apart
	Rootless  bool            `json:"rootless,omitempty"`
	Started   bool            `json:"started,omitempty"` // the program was told to run
	Cgroup    json.RawMessage `json:"cgroup,omitempty"`  // runtime/cgroup's State
	Rootfs    string          `json:"rootfs,omitempty"`
	HostMount uint64          `json:"hostMount,omitempty"` // without a mount namespace: the host's mount that Rootfs was on before
}

const (
	stateName = "state.json"
	// StartSocket is the name of the socket on which init waits for start.
	StartSocket = "start.sock"
)

// Store is the root directory of all containers.
type Store struct{ root string }

// Open names a store; the directory is made at the first Create.
func Open(root string) *Store { return &Store{root} }

// Root is the store's directory.
func (s *Store) Root() string { return s.root }

// CheckID refuses names that could be more than one directory entry or confuse a terminal.
func CheckID(id string) error {
	if id == "" || len(id) > 1024 || id == "." || id == ".." {
		return errs.New(errs.Invalid, "container id %q: want 1 to 1024 letters, digits, '_', '-', '.' or '+'", id)
	}
	for _, c := range []byte(id) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("_-.+", rune(c)) {
			return errs.New(errs.Invalid, "container id %q: the character %q is not allowed; use letters, digits, '_', '-', '.' or '+'", id, c)
		}
	}
	return nil
}

// Dir is a container's directory, open and, unless opened by Peek, locked.
type Dir struct {
	path string
	file *os.File
}

func (s *Store) path(id string) string { return filepath.Join(s.root, id) }

// Create makes the directory of a new container and locks it.
func (s *Store) Create(id string) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	path := s.path(id)
	err := os.Mkdir(path, 0o711)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(s.root, 0o711); err == nil {
			err = os.Mkdir(path, 0o711)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, errs.New(errs.Conflict, "container with given ID already exists: %s (in %s); delete it or choose another id", id, s.root)
	}
	if err != nil {
		return nil, fmt.Errorf("make the container's directory: %w", err)
	}
	return s.open(id, true)
}

// Lock opens and locks the directory of a container, waiting for another invocation that holds it.
func (s *Store) Lock(id string) (*Dir, error) { return s.open(id, true) }

// Peek opens it without the lock, for readers.
func (s *Store) Peek(id string) (*Dir, error) { return s.open(id, false) }

func (s *Store) open(id string, lock bool) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(id), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, notFound(err, id, s.root)
	}
	d := &Dir{s.path(id), f}
	if !lock {
		return d, nil
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("lock container %s: %w", id, err)
	}
	if _, err := os.Stat(d.path); err != nil { // deleted while we waited
		d.Close()
		return nil, notFound(err, id, s.root)
	}
	return d, nil
}

func notFound(err error, id, root string) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return errs.New(errs.NotFound, "container %q does not exist (looked in %s)", id, root)
	}
	return fmt.Errorf("open container %s: %w", id, err)
}

// List names all containers, in alphabetical order.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Close releases the lock.
func (d *Dir) Close() { d.file.Close() }

// Path is the directory.
func (d *Dir) Path() string { return d.path }

// Fd names the directory in a form short enough for a socket address, while d is open.
func (d *Dir) Fd() int { return int(d.file.Fd()) }

// Read reads the record. A container whose creation was cut off before the first record gives NotFound.
func (d *Dir) Read() (*Record, error) {
	var r Record
	if err := atomicfile.ReadJSON(filepath.Join(d.path, stateName), &r); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errs.New(errs.NotFound, "container %q has no state: its creation was cut off; remove it with delete --force", filepath.Base(d.path))
		}
		return nil, errs.New(errs.Damaged, "read the state of container %q: %w", filepath.Base(d.path), err)
	}
	if r.Version > Version {
		return nil, errs.New(errs.Unsupported, "the state of container %q has version %d, newer than this runtime's %d", filepath.Base(d.path), r.Version, Version)
	}
	return &r, nil
}

// Write replaces the record.
func (d *Dir) Write(r *Record) error {
	r.Version = Version
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(d.path, stateName), data, 0o600, atomicfile.Volatile); err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	return nil
}

// Remove deletes the directory with all in it: the last act of a container's life.
func (d *Dir) Remove() error {
	if err := os.RemoveAll(d.path); err != nil {
		return fmt.Errorf("remove the container's directory: %w", err)
	}
	return nil
}

// StartTime reads when the process started, in clock ticks since boot, and its state letter. ok is false when there is
// no such process.
func StartTime(pid int) (ticks uint64, letter byte, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	return parseStat(string(data))
}

// parseStat finds fields 3 and 22; field 2, the name, may contain anything, ')' and spaces too.
func parseStat(text string) (uint64, byte, bool) {
	i := strings.LastIndexByte(text, ')')
	if i < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(text[i+1:])
	if len(fields) < 20 {
		return 0, 0, false
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	return ticks, fields[0][0], err == nil
}

// Alive says whether the record's init process still runs. A zombie does not.
func (r *Record) Alive() bool {
	if r.Pid == 0 {
		return false
	}
	ticks, letter, ok := StartTime(r.Pid)
	return ok && ticks == r.PidStart && letter != 'Z' && letter != 'X'
}

// DecodeCgroup decodes the saved control groups into v.
func (r *Record) DecodeCgroup(v any) error {
	if len(r.Cgroup) == 0 {
		return errs.New(errs.Damaged, "the state of container %q has no control groups", r.ID)
	}
	if err := json.Unmarshal(r.Cgroup, v); err != nil {
		return errs.New(errs.Damaged, "the control groups in the state of container %q: %w", r.ID, err)
	}
	return nil
}
