// Package volume keeps volumes: directories for data that outlives containers, made by the local driver. A volume of the
// options type, device and o is another filesystem, mounted while a container that uses it runs. The package must not
// know containers beyond their identifiers; who uses what is told to it by Use, for every container at start as well.
//
// On disk: ROOT/NAME/_data holds the data, ROOT/NAME/volume.json what was asked for. A directory with data but without a
// readable volume.json is still a volume, so that damage to a record never hides data.
package volume

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/keylock"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/lib/projquota"
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

	Plugins *plugin.Plugins // drivers besides local; nil: none
}

// Volumes is the local driver with its volumes. It is safe for concurrent use.
type Volumes struct {
	cfg Config

	mu     sync.Mutex
	loaded bool
	all    map[string]*entry

	busy       keylock.Set    // one operation on a volume at a time
	filling    keylock.Set    // one copy-up at a time, around those operations
	background sync.WaitGroup // mounts that are given back to plug-ins

	mount    func(device, dir, kind string, flags uintptr, data string) error // unix.Mount, but for tests
	patience time.Duration                                                    // with it
}

// entry is one volume; under Volumes.mu.
type entry struct {
	volume  model.Volume
	users   map[string]bool // containers that refer to it
	mounted map[string]bool // containers that run with it mounted
	stale   map[string]bool // containers that an earlier daemon let a plug-in mount it for, and not heard of yet
	at      string          // where the plug-in mounted it
	pending <-chan struct{} // closed when the last mount on the host has ended; under the volume's lock
}

// record is volume.json.
type record struct {
	Version   int
	Name      string
	Created   time.Time
	Labels    map[string]string `json:",omitempty"`
	Options   map[string]string `json:",omitempty"`
	Anonymous bool              `json:",omitempty"`
	Driver    string            `json:",omitempty"` // empty: local
	Scope     string            `json:",omitempty"`
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
	return &Volumes{cfg: cfg, all: map[string]*entry{}, mount: unix.Mount, patience: mountPatience}
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
			e := newEntry(vol)
			if foreign(vol) {
				e.stale = v.staleMounts(name)
				v.giveBackOurs(e, vol)
			}
			v.all[name] = e
		}
	}
	v.loaded = true
	return nil
}

func newEntry(vol model.Volume) *entry {
	return &entry{volume: vol, users: map[string]bool{}, mounted: map[string]bool{}, stale: map[string]bool{}}
}

func (v *Volumes) dir(name string) string  { return filepath.Join(v.cfg.Root, name) }
func (v *Volumes) data(name string) string { return filepath.Join(v.cfg.Root, name, dataDir) }

func (v *Volumes) read(name string) (model.Volume, bool) {
	var r record
	rerr := atomicfile.ReadJSON(filepath.Join(v.dir(name), recordFile), &r)
	if rerr == nil && r.Version > recordVersion {
		rerr = errs.New(errs.Damaged, "it has version %d, this program knows %d", r.Version, recordVersion)
	}
	if rerr == nil && r.Driver != "" {
		return model.Volume{Name: name, Driver: r.Driver, Created: r.Created, Labels: r.Labels, Options: r.Options, Anonymous: r.Anonymous, Scope: r.Scope}, true
	}
	st, err := os.Lstat(v.data(name))
	if err != nil || !st.IsDir() {
		v.cfg.Log.Warn("directory is no volume: it has no _data", "directory", v.dir(name))
		return model.Volume{}, false
	}
	vol := model.Volume{Name: name, Driver: model.LocalDriver, Mountpoint: v.data(name), Created: st.ModTime().UTC()}
	if rerr != nil {
		v.cfg.Log.Warn("record of volume cannot be read; its data is kept, labels and options are unknown", "volume", name, "error", rerr)
		vol.Anonymous = ids.Valid(name)
		return vol, true
	}
	vol.Created, vol.Labels, vol.Options, vol.Anonymous = r.Created, r.Labels, r.Options, r.Anonymous
	return vol, true
}

// Create makes a volume of what was asked (Name, Driver, Labels, Options, Anonymous), or gives the one of that name that
// is there already when it was made with the same options. Without a name it is an anonymous one with a name of 64
// hexadecimal digits.
func (v *Volumes) Create(ctx context.Context, want model.Volume) (model.Volume, error) {
	vol, err := v.prepare(want)
	if err != nil {
		return model.Volume{}, err
	}
	unlock, err := v.lock(ctx, vol.Name)
	if err != nil {
		return model.Volume{}, err
	}
	defer unlock()
	there, err := v.get(vol.Name)
	switch {
	case err == nil && want.Driver != "" && vol.Driver != there.Driver:
		return model.Volume{}, errs.New(errs.Conflict, "volume %q exists already with the driver %s, not %s; remove it first, or choose another name", want.Name, there.Driver, vol.Driver)
	case err == nil && len(want.Options) > 0 && !maps.Equal(want.Options, there.Options):
		return model.Volume{}, errs.New(errs.Conflict, "volume %q exists already with other options (%s); remove it first, or choose another name", want.Name, optionText(there.Options))
	case err == nil:
		return there, nil
	case !errs.Is(err, errs.NotFound):
		return model.Volume{}, err
	}
	undo := func() {}
	err = nil
	if foreign(vol) {
		undo, err = v.createForeign(ctx, &vol)
	} else if want.Driver == "" && !vol.Anonymous && len(vol.Options) == 0 { // nobody said which driver: one may have it
		if found, ok := v.search(ctx, vol.Name); ok {
			vol.Driver, vol.Scope, vol.Mountpoint = found.Driver, found.Scope, found.Mountpoint
		}
	}
	if err == nil {
		if err = v.write(vol); err != nil {
			undo()
		}
	}
	if err != nil {
		return model.Volume{}, errs.Wrap(err, "create volume %s", vol.Name)
	}
	v.mu.Lock()
	v.all[vol.Name] = newEntry(vol)
	v.mu.Unlock()
	v.event("create", vol.Name, vol.Driver)
	return vol, nil
}

// prepare checks what was asked and completes it.
func (v *Volumes) prepare(want model.Volume) (model.Volume, error) {
	if want.Name == "" {
		want.Name, want.Anonymous = ids.New(), true
	} else if err := model.ValidateVolumeName(want.Name); err != nil {
		return model.Volume{}, err
	}
	vol := model.Volume{Name: want.Name, Driver: want.Driver, Created: v.cfg.Clock.Now().UTC().Truncate(time.Second),
		Labels: maps.Clone(want.Labels), Options: maps.Clone(want.Options), Anonymous: want.Anonymous}
	if vol.Driver == "default" {
		vol.Driver = model.LocalDriver
	}
	if foreign(vol) {
		return vol, nil
	}
	if err := checkOptions(want.Options); err != nil {
		return model.Volume{}, errs.Wrap(err, "create %s", want.Name)
	}
	vol.Driver, vol.Mountpoint = model.LocalDriver, v.data(want.Name)
	return vol, nil
}

// plain says whether a volume is nothing but a directory of ours.
func plain(vol model.Volume) bool {
	return !foreign(vol) && vol.Options["type"]+vol.Options["device"]+vol.Options["o"] == ""
}

// lock waits for the end of other operations on the volume, but not for ever: a plug-in or a server may hang.
func (v *Volumes) lock(ctx context.Context, name string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	unlock, err = v.busy.LockContext(ctx, name)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "volume %s is busy with another operation, which has not ended; see whether its driver hangs: %w", name, err)
	}
	return unlock, nil
}

// lockPatience is longer than one call of a plug-in or one mount may take.
const lockPatience = 90 * time.Second

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
		discard(temp)
		return err
	}
	return atomicfile.SyncDir(v.cfg.Root)
}

// makeDir makes a volume's directory, empty, and its record.
func (v *Volumes) makeDir(dir string, vol model.Volume) error {
	if err := os.Mkdir(dir, 0o701); err != nil {
		return err
	}
	r := record{Version: recordVersion, Name: vol.Name, Created: vol.Created, Labels: vol.Labels, Options: vol.Options, Anonymous: vol.Anonymous}
	if foreign(vol) {
		r.Driver, r.Scope = vol.Driver, vol.Scope
	} else if err := os.Mkdir(filepath.Join(dir, dataDir), 0o755); err != nil {
		return err
	}
	if plain(vol) {
		if err := own(filepath.Join(dir, dataDir), vol.Options); err != nil {
			return errs.Wrap(err, "options uid, gid and mode")
		}
	}
	if size := vol.Options["size"]; size != "" && plain(vol) {
		bytes, err := units.RAMInBytes(size)
		if err == nil {
			err = projquota.Limit(uint64(bytes), filepath.Join(dir, dataDir))
		}
		if err != nil {
			return errs.Wrap(err, "option size=%s", size)
		}
	}
	return atomicfile.WriteJSON(filepath.Join(dir, recordFile), r, 0o600, atomicfile.Durable)
}

// discard removes a volume's directory, and the limit of its size.
func discard(dir string) error {
	if err := projquota.Release(filepath.Join(dir, dataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return openat.RemoveAll(dir)
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
		delete(e.stale, container)
	}
	return nil
}

// Release takes the note back; taking back what is not noted is no error.
func (v *Volumes) Release(_ context.Context, name, container string) error {
	v.mu.Lock()
	e := v.all[name]
	if e == nil {
		v.mu.Unlock()
		return nil
	}
	delete(e.users, container)
	left, vol := e.stale[container], e.volume
	v.mu.Unlock()
	if left { // of a start that an earlier daemon's death cut off
		v.background.Go(func() {
			defer v.busy.Lock(name)()
			v.giveBack(context.Background(), e, vol, container)
		})
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
func (v *Volumes) Remove(ctx context.Context, name string, force bool) error {
	unlock, err := v.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = v.get(name)
	if errs.Is(err, errs.NotFound) {
		if vol, ok := v.search(ctx, name); ok {
			return errs.Wrap(v.removeForeign(ctx, vol, false), "remove volume %s", name)
		}
	}
	if force && errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return v.remove(ctx, name, force)
}

// remove is Remove for whoever holds the volume's lock.
func (v *Volumes) remove(ctx context.Context, name string, force bool) error {
	mounts, err := v.mountsLeft(name)
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
	if foreign(e.volume) {
		err = v.removeForeign(ctx, e.volume, force)
	}
	if err == nil {
		err = os.Rename(v.dir(name), gone)
	}
	if err != nil {
		v.mu.Lock()
		v.all[name] = e
		v.mu.Unlock()
		return errs.Wrap(err, "remove volume %s", name)
	}
	v.event("destroy", name, e.volume.Driver)
	if err := atomicfile.SyncDir(v.cfg.Root); err != nil {
		return errs.Wrap(err, "remove volume %s", name)
	}
	return errs.Wrap(discard(gone), "remove volume %s", name)
}

// mountsLeft lists what is mounted in a volume that nobody uses. The volume's own filesystem may be left of a start that
// the daemon's death cut off: it is given back.
func (v *Volumes) mountsLeft(name string) ([]string, error) {
	mounts, err := mountsBelow(v.dir(name))
	if err != nil || len(mounts) != 1 || mounts[0] != v.data(name) {
		return mounts, err
	}
	v.mu.Lock()
	e, err := v.entry(name)
	ours := err == nil && len(e.users) == 0 && len(e.mounted) == 0 && needsMount(e.volume)
	v.mu.Unlock()
	if !ours {
		return mounts, err
	}
	return nil, errs.Wrap(unix.Unmount(mounts[0], unix.MNT_DETACH), "unmount volume %s", name)
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
	if err := discard(dir); err != nil {
		log.Warn("left-over of a removed volume stays", "directory", dir, "error", err)
	}
}

func (v *Volumes) event(action, name, driver string) {
	v.cfg.Events(model.Event{Type: "volume", Action: action, ID: name, Attrs: map[string]string{"driver": driver}})
}
