package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/model"
)

// The volumes of other drivers: Docker's volume plug-ins
// (https://docs.docker.com/engine/extend/plugins_volume/). What such a driver has is its own truth; here is recorded which
// volumes were asked for with which labels, and, because drivers count, who was given a mount.

// askPatience bounds questions, which `volume ls` asks all plug-ins. What changes something has the limit of lib/plugin.
const askPatience = 5 * time.Second

// mountsFile in a volume's directory has the containers for which the plug-in was asked to mount, so that a daemon that
// died in between still gives the mounts back.
const mountsFile = "mounts.json"

// request is the body of all calls.
type request struct {
	Name string
	ID   string            `json:",omitempty"` // who mounts: the container
	Opts map[string]string `json:",omitempty"`
}

// pluginVolume is a volume as Get and List answer.
type pluginVolume struct {
	Name       string
	Mountpoint string
	CreatedAt  string
	Status     map[string]any
}

func foreign(vol model.Volume) bool { return vol.Driver != "" && vol.Driver != model.LocalDriver }

// call asks a plug-in to do something.
func (v *Volumes) call(ctx context.Context, driver, method string, in request, out any) error {
	if v.cfg.Plugins == nil {
		return errs.New(errs.NotFound, "no volume driver %q is here; there is: local", driver)
	}
	p, err := v.cfg.Plugins.Get(ctx, driver, plugin.VolumeDriver)
	if err != nil {
		return err
	}
	return p.Call(ctx, "VolumeDriver."+method, in, out)
}

// ask is Get: the volume as the plug-in has it now.
func (v *Volumes) ask(ctx context.Context, driver, name string) (pluginVolume, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var answer struct{ Volume pluginVolume }
	err := v.call(ctx, driver, "Get", request{Name: name}, &answer)
	if err == nil && answer.Volume.Name != name {
		err = &plugin.Refusal{Plugin: driver, Method: "VolumeDriver.Get", Message: "it has no volume " + name}
	}
	return answer.Volume, err
}

// scope asks how far a driver's volumes reach. Plug-ins need not know the question.
func (v *Volumes) scope(ctx context.Context, driver string) string {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var answer struct{ Capabilities struct{ Scope string } }
	if err := v.call(ctx, driver, "Capabilities", request{}, &answer); err != nil || answer.Capabilities.Scope != model.ScopeGlobal {
		return model.ScopeLocal
	}
	return model.ScopeGlobal
}

// createForeign makes a volume with its plug-in, which may have it already, and completes what is to be recorded.
func (v *Volumes) createForeign(ctx context.Context, vol *model.Volume) (undo func(), err error) {
	undo = func() {}
	there, err := v.ask(ctx, vol.Driver, vol.Name)
	switch {
	case err == nil:
	case refused(err): // whatever its words: it does not have the volume
		if err := v.call(ctx, vol.Driver, "Create", request{Name: vol.Name, Opts: vol.Options}, nil); err != nil {
			return undo, err
		}
		undo = func() {
			if err := v.call(context.WithoutCancel(ctx), vol.Driver, "Remove", request{Name: vol.Name}, nil); err != nil {
				v.cfg.Log.Warn("a plug-in keeps a volume that could not be recorded", "volume", vol.Name, "driver", vol.Driver, "error", err)
			}
		}
		there, _ = v.ask(ctx, vol.Driver, vol.Name) // some tell where it is only when it is mounted
	default:
		return undo, err
	}
	vol.Mountpoint, vol.Scope = there.Mountpoint, v.scope(ctx, vol.Driver)
	return undo, nil
}

// refused says whether a plug-in answered, and said no.
func refused(err error) bool {
	var r *plugin.Refusal
	return errors.As(err, &r)
}

// mountForeign lets the plug-in mount for a container and notes that it did; the caller holds the volume's lock.
func (v *Volumes) mountForeign(ctx context.Context, e *entry, vol model.Volume, container string) (string, error) {
	v.mu.Lock()
	at, again, stale := e.at, e.mounted[container], e.stale[container]
	v.mu.Unlock()
	if again && at != "" {
		return at, nil // the container has the volume at two places
	}
	if stale { // an earlier daemon died between the mount and the container's start
		v.giveBack(ctx, e, vol, container)
	}
	if err := v.noteMount(e, vol.Name, container, true, false); err != nil {
		return "", err
	}
	var answer struct{ Mountpoint string }
	err := v.call(ctx, vol.Driver, "Mount", request{Name: vol.Name, ID: container}, &answer)
	if err == nil && !filepath.IsAbs(answer.Mountpoint) {
		err = errs.New(errs.Unavailable, "plug-in %s: VolumeDriver.Mount: the mount point %q is no absolute path", vol.Driver, answer.Mountpoint)
	}
	if err == nil {
		_, err = os.Stat(answer.Mountpoint)
		err = errs.Wrap(errs.As(errs.Unavailable, err), "plug-in %s says that it mounted", vol.Driver)
	}
	if err == nil {
		err = failpoint.Hit("volume/plugin/mounted")
	}
	if err != nil { // it may have mounted all the same, for example after the time was over
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askPatience)
		defer cancel()
		v.giveBack(ctx, e, vol, container)
		if errs.Is(err, errs.Unavailable) {
			v.noteEnd(e, vol.Name, container, true)
		}
		return "", err
	}
	v.mu.Lock()
	e.at = answer.Mountpoint
	v.mu.Unlock()
	return answer.Mountpoint, nil
}

// giveBack lets the plug-in unmount for a container; the caller holds the volume's lock. A plug-in that does not answer is
// asked again before the container's next mount, and when the container is removed.
func (v *Volumes) giveBack(ctx context.Context, e *entry, vol model.Volume, container string) {
	err := v.call(ctx, vol.Driver, "Unmount", request{Name: vol.Name, ID: container}, nil)
	if err != nil {
		v.cfg.Log.Warn("a plug-in did not unmount a volume", "volume", vol.Name, "container", container, "error", err)
	}
	v.noteEnd(e, vol.Name, container, errs.Is(err, errs.Unavailable))
}

func (v *Volumes) noteEnd(e *entry, name, container string, stale bool) {
	if err := v.noteMount(e, name, container, false, stale); err != nil {
		v.cfg.Log.Warn("that a volume is not mounted any more is not recorded", "volume", name, "container", container, "error", err)
	}
}

// noteMount records who has a mount, or may have one.
func (v *Volumes) noteMount(e *entry, name, container string, mounted, stale bool) error {
	v.mu.Lock()
	for set, in := range map[*map[string]bool]bool{&e.mounted: mounted, &e.stale: stale} {
		if delete(*set, container); in {
			(*set)[container] = true
		}
	}
	list := slices.Concat(sortedSet(e.mounted), sortedSet(e.stale))
	gone := v.all[name] != e
	v.mu.Unlock()
	if gone {
		return nil
	}
	return atomicfile.WriteJSON(filepath.Join(v.dir(name), mountsFile), list, 0o600, atomicfile.Volatile)
}

// staleMounts reads what an earlier daemon noted.
func (v *Volumes) staleMounts(name string) map[string]bool {
	var list []string
	out := map[string]bool{}
	if err := atomicfile.ReadJSON(filepath.Join(v.dir(name), mountsFile), &list); err == nil {
		for _, id := range list {
			out[id] = true
		}
	}
	return out
}

// giveBackOurs gives back, in the background, what an earlier daemon mounted for itself: for a backup or a copy-up that its
// death cut off. Containers are asked for by the engine.
func (v *Volumes) giveBackOurs(e *entry, vol model.Volume) {
	for holder := range e.stale {
		if ids.Valid(holder) {
			continue
		}
		v.background.Go(func() {
			defer v.busy.Lock(vol.Name)()
			v.giveBack(context.Background(), e, vol, holder)
		})
	}
}

// removeForeign lets the plug-in remove a volume. With force a plug-in that is not there is no obstacle: then only the
// record goes.
func (v *Volumes) removeForeign(ctx context.Context, vol model.Volume, force bool) error {
	err := v.call(ctx, vol.Driver, "Remove", request{Name: vol.Name}, nil)
	if force && (errs.Is(err, errs.NotFound) || errs.Is(err, errs.Unavailable)) {
		v.cfg.Log.Warn("a volume's record is removed without its plug-in, which may still have the data", "volume", vol.Name, "driver", vol.Driver, "error", err)
		return nil
	}
	if refused(err) {
		return errs.As(errs.Conflict, err)
	}
	return err
}

// everywhere asks all plug-ins at once for their volumes. Those that do not answer are told of in the warnings if a volume of
// theirs is known here.
func (v *Volumes) everywhere(ctx context.Context) (all map[string]model.Volume, warnings []string) {
	if v.cfg.Plugins == nil {
		return nil, nil
	}
	names := v.cfg.Plugins.Names()
	if len(names) == 0 {
		return nil, nil
	}
	known := v.Drivers()
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all = map[string]model.Volume{}
	for _, driver := range names {
		wg.Go(func() {
			var answer struct{ Volumes []pluginVolume }
			err := v.call(ctx, driver, "List", request{}, &answer)
			scope := ""
			if err == nil && len(answer.Volumes) > 0 {
				scope = v.scope(ctx, driver)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if slices.Contains(known, driver) {
					warnings = append(warnings, err.Error())
				}
				return
			}
			for _, p := range answer.Volumes {
				if model.ValidateVolumeName(p.Name) == nil {
					all[p.Name] = model.Volume{Name: p.Name, Driver: driver, Mountpoint: p.Mountpoint, Scope: scope, Created: parseTime(p.CreatedAt), Status: p.Status}
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(warnings)
	return all, warnings
}

func parseTime(s string) time.Time {
	t, _ := time.Parse(time.RFC3339, s) // a plug-in need not tell
	return t
}

// Drivers lists the drivers that volumes here have, and local.
func (v *Volumes) Drivers() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	set := map[string]bool{model.LocalDriver: true}
	if err := v.load(); err != nil {
		v.cfg.Log.Warn("drivers of volumes are not known", "error", err)
	}
	for _, e := range v.all {
		set[e.volume.Driver] = true
	}
	return sortedSet(set)
}

// search asks the plug-ins for a volume that is not recorded here.
func (v *Volumes) search(ctx context.Context, name string) (model.Volume, bool) {
	all, _ := v.everywhere(ctx)
	vol, ok := all[name]
	return vol, ok
}

// Describe is Inspect with what the plug-in of the volume says now, and knows volumes that plug-ins have but nobody asked
// for here.
func (v *Volumes) Describe(ctx context.Context, name string) (model.Volume, error) {
	vol, err := v.get(name)
	if errs.Is(err, errs.NotFound) {
		if found, ok := v.search(ctx, name); ok {
			return found, nil
		}
	}
	if err != nil || !foreign(vol) {
		return vol, err
	}
	there, err := v.ask(ctx, vol.Driver, name)
	if err != nil { // what is recorded is better than nothing, but the trouble must be seen
		vol.Status = map[string]any{"error": err.Error()}
		return vol, nil
	}
	vol.Status = there.Status
	if there.Mountpoint != "" {
		vol.Mountpoint = there.Mountpoint
	}
	return vol, nil
}
