// Package volume keeps volumes: directories for data that outlives containers, made by the local driver. A volume of the
// options type, device and o is another filesystem, mounted while a container that uses it runs. The package must not
// know containers beyond their identifiers; who uses what is told to it by Use, for every container at start as well.
//
// On disk: ROOT/NAME/_data holds the data, ROOT/NAME/volume.json what was asked for. A directory with data but without a
// readable volume.json is still a volume, so that damage to a record never hides data.
package volume

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/keylock"
	"github.com/shoalhq/shoal/model"
)

// Names inside a volume's directory, and the beginning of directories that are being made or removed.
const (
	dataDir    = "_data"
	recordFile = "volume.json"
	halfMade   = ".making-"
	halfGone   = ".removing-"
)

// recordVersion is the version of volume.json.
const recordVersion = 1

// Config says where volumes are and whom to tell of changes.
type Config struct {
	Root   string            // directory of its own; made when missing
	Events func(model.Event) // may be nil; must not block
	Clock  clock.Clock       // nil: the machine's
	Log    *slog.Logger      // nil: nowhere
}

// Volumes is the local driver with its volumes. It is safe for concurrent use.
type Volumes struct {
	cfg Config

	mu     sync.Mutex
	loaded bool
	all    map[string]*entry

	busy keylock.Set // one operation on a volume at a time
}

// entry is one volume; under Volumes.mu.
type entry struct {
	volume  model.Volume
	users   map[string]bool // containers that refer to it
	mounted map[string]bool // containers that run with it mounted
}

// record is volume.json.
type record struct {
	Version   int
	Name      string
	Created   time.Time
	Labels    map[string]string `json:",omitempty"`
	Options   map[string]string `json:",omitempty"`
	Anonymous bool              `json:",omitempty"`
}

// Open makes the room; the directory is read at the first use.
func Open(cfg Config) *Volumes {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = func(model.Event) {}
	}
	return &Volumes{cfg: cfg, all: map[string]*entry{}}
}

// load reads all records once; it is called with mu held, at the first use, when nothing else can be waiting for long.
func (v *Volumes) load() error {
	if v.loaded {
		return nil
	}
	if err := os.MkdirAll(v.cfg.Root, 0o701); err != nil {
		return errs.Wrap(err, "volumes")
	}
	list, err := os.ReadDir(v.cfg.Root)
	if err != nil {
		return errs.Wrap(err, "volumes")
	}
	for _, e := range list {
		name := e.Name()
		if strings.HasPrefix(name, halfMade) || strings.HasPrefix(name, halfGone) {
			go removeTree(filepath.Join(v.cfg.Root, name), v.cfg.Log)
			continue
		}
		if !e.IsDir() || model.ValidateVolumeName(name) != nil {
			continue
		}
		if vol, ok := v.read(name); ok && v.all[name] == nil {
			v.all[name] = newEntry(vol)
		}
	}
	v.loaded = true
	return nil
}

func newEntry(vol model.Volume) *entry {
	return &entry{volume: vol, users: map[string]bool{}, mounted: map[string]bool{}}
}

func (v *Volumes) dir(name string) string  { return filepath.Join(v.cfg.Root, name) }
func (v *Volumes) data(name string) string { return filepath.Join(v.cfg.Root, name, dataDir) }

func (v *Volumes) read(name string) (model.Volume, bool) {
	st, err := os.Lstat(v.data(name))
	if err != nil || !st.IsDir() {
		v.cfg.Log.Warn("directory is no volume: it has no _data", "directory", v.dir(name))
		return model.Volume{}, false
	}
	vol := model.Volume{Name: name, Driver: model.LocalDriver, Mountpoint: v.data(name), Created: st.ModTime().UTC()}
	var r record
	err = atomicfile.ReadJSON(filepath.Join(v.dir(name), recordFile), &r)
	if err == nil && r.Version > recordVersion {
		err = errs.New(errs.Damaged, "it has version %d, this program knows %d", r.Version, recordVersion)
	}
	if err != nil {
		v.cfg.Log.Warn("record of volume cannot be read; its data is kept, labels and options are unknown", "volume", name, "error", err)
		vol.Anonymous = ids.Valid(name)
		return vol, true
	}
	vol.Created, vol.Labels, vol.Options, vol.Anonymous = r.Created, r.Labels, r.Options, r.Anonymous
	return vol, true
}

// Create makes a volume of what was asked (Name, Driver, Labels, Options, Anonymous), or gives the one of that name that
// is there already when it was made with the same options. Without a name it is an anonymous one with a name of 64
// hexadecimal digits.
func (v *Volumes) Create(_ context.Context, want model.Volume) (model.Volume, error) {
	vol, err := v.prepare(want)
	if err != nil {
		return model.Volume{}, err
	}
	defer v.busy.Lock(vol.Name)()
	there, err := v.get(vol.Name)
	switch {
	case err == nil && len(want.Options) > 0 && !maps.Equal(want.Options, there.Options):
		return model.Volume{}, errs.New(errs.Conflict, "volume %q exists already with other options (%v); remove it first, or choose another name", want.Name, there.Options)
	case err == nil:
		return there, nil
	case !errs.Is(err, errs.NotFound):
		return model.Volume{}, err
	}
	if err := v.write(vol); err != nil {
		return model.Volume{}, errs.Wrap(err, "create volume %s", vol.Name)
	}
	v.mu.Lock()
	v.all[vol.Name] = newEntry(vol)
	v.mu.Unlock()
	v.event("create", vol.Name, nil)
	return vol, nil
}

// prepare checks what was asked and completes it.
func (v *Volumes) prepare(want model.Volume) (model.Volume, error) {
	if want.Name == "" {
		want.Name, want.Anonymous = ids.New(), true
	} else if err := model.ValidateVolumeName(want.Name); err != nil {
		return model.Volume{}, err
	}
	if want.Driver != "" && want.Driver != model.LocalDriver && want.Driver != "default" {
		return model.Volume{}, errs.New(errs.NotFound, "create %s: no volume driver %q is here; there is: local", want.Name, want.Driver)
	}
	if err := checkOptions(want.Options); err != nil {
		return model.Volume{}, errs.Wrap(err, "create %s", want.Name)
	}
	return model.Volume{Name: want.Name, Driver: model.LocalDriver, Mountpoint: v.data(want.Name), Created: v.cfg.Clock.Now().UTC().Truncate(time.Second),
		Labels: maps.Clone(want.Labels), Options: maps.Clone(want.Options), Anonymous: want.Anonymous}, nil
}

// plain says whether a volume is nothing but a directory of ours.
func plain(vol model.Volume) bool { return len(vol.Options) == 0 }

// write makes the directory under another name and renames it when it is whole.
func (v *Volumes) write(vol model.Volume) error {
	temp := filepath.Join(v.cfg.Root, halfMade+ids.New())
	err := v.makeDir(temp, vol)
	if err == nil {
		err = failpoint.Hit("volume/create/rename")
	}
	if err == nil {
		err = os.Rename(temp, v.dir(vol.Name))
	}
	if err != nil {
		os.RemoveAll(temp)
		return err
	}
	return atomicfile.SyncDir(v.cfg.Root)
}

// makeDir makes a volume's directory, empty, and its record.
func (v *Volumes) makeDir(dir string, vol model.Volume) error {
	if err := os.Mkdir(dir, 0o701); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, dataDir), 0o755); err != nil {
		return err
	}
	r := record{recordVersion, vol.Name, vol.Created, vol.Labels, vol.Options, vol.Anonymous}
	return atomicfile.WriteJSON(filepath.Join(dir, recordFile), r, 0o600, atomicfile.Durable)
}

func (v *Volumes) get(name string) (model.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, err := v.entry(name)
	if err != nil {
		return model.Volume{}, err
	}
	return e.volume, nil
}

// entry is called with mu held.
func (v *Volumes) entry(name string) (*entry, error) {
	if err := v.load(); err != nil {
		return nil, err
	}
	e := v.all[name]
	if e == nil {
		return nil, errs.New(errs.NotFound, "get %s: no such volume; `shoal volume ls` lists those that are here", name)
	}
	return e, nil
}

// Inspect gives one volume.
func (v *Volumes) Inspect(_ context.Context, name string) (model.Volume, error) { return v.get(name) }

// Use notes that the container refers to the volume, which then cannot be removed; mounted that it runs with it, from
// before the daemon was started.
func (v *Volumes) Use(_ context.Context, name, container string, mounted bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, err := v.entry(name)
	if err != nil {
		return err
	}
	e.users[container] = true
	if mounted {
		e.mounted[container] = true
	}
	return nil
}

// Release takes the note back; taking back what is not noted is no error.
func (v *Volumes) Release(_ context.Context, name, container string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e := v.all[name]; e != nil {
		delete(e.users, container)
	}
	return nil
}

// Users lists the containers that refer to the volume.
func (v *Volumes) Users(name string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, err := v.entry(name)
	if err != nil {
		return nil
	}
	return sortedSet(e.users)
}

func sortedSet(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }

// Remove deletes the volume and its data. One that containers refer to is a Conflict, also with force; force only makes
// it no error that there is none.
func (v *Volumes) Remove(_ context.Context, name string, force bool) error {
	defer v.busy.Lock(name)()
	_, err := v.get(name)
	if force && errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return v.remove(name)
}

// remove is Remove for whoever holds the volume's lock.
func (v *Volumes) remove(name string) error {
	mounts, err := mountsBelow(v.dir(name))
	if err != nil {
		return err
	}
	if len(mounts) > 0 { // deleting would reach into another filesystem
		return errs.New(errs.Conflict, "remove %s: something is mounted in the volume: %s; unmount it first", name, strings.Join(mounts, ", "))
	}
	e, err := v.forget(name)
	if err != nil {
		return err
	}
	gone := filepath.Join(v.cfg.Root, halfGone+ids.New())
	if err := os.Rename(v.dir(name), gone); err != nil {
		v.mu.Lock()
		v.all[name] = e
		v.mu.Unlock()
		return errs.Wrap(err, "remove volume %s", name)
	}
	v.event("destroy", name, nil)
	if err := atomicfile.SyncDir(v.cfg.Root); err != nil {
		return errs.Wrap(err, "remove volume %s", name)
	}
	return errs.Wrap(os.RemoveAll(gone), "remove volume %s", name)
}

// forget takes a volume that nobody uses off the list, at one stroke: from then on nobody can begin to use it.
func (v *Volumes) forget(name string) (*entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, err := v.entry(name)
	if err != nil {
		return nil, err
	}
	if len(e.users) > 0 {
		return nil, errs.New(errs.Conflict, "remove %s: volume is in use - [%s]; remove the container first", name, strings.Join(sortedSet(e.users), ", "))
	}
	delete(v.all, name)
	return e, nil
}

func removeTree(dir string, log *slog.Logger) {
	if mounts, err := mountsBelow(dir); err != nil || len(mounts) > 0 {
		log.Warn("left-over of a removed volume stays: something is mounted in it", "directory", dir, "mounts", mounts, "error", err)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		log.Warn("left-over of a removed volume stays", "directory", dir, "error", err)
	}
}

func (v *Volumes) event(action, name string, more map[string]string) {
	attrs := map[string]string{"driver": model.LocalDriver}
	maps.Copy(attrs, more)
	v.cfg.Events(model.Event{Type: "volume", Action: action, ID: name, Attrs: attrs})
}
