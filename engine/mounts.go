package engine

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// propagations are the mount propagation modes.
var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}

// resolveMounts turns what was asked into mount points: the first that names a destination has it, in Docker's order of
// volumes-from, binds, structured mounts, anonymous volumes.
func (e *Engine) resolveMounts(c *model.Container) error {
	r := &mountResolver{e: e, c: c, at: map[string]int{}}
	st := &c.Spec.Storage
	for _, from := range st.VolumesFrom {
		if err := r.volumesFrom(from); err != nil {
			return err
		}
	}
	inherited := len(r.points)
	for _, bind := range st.Binds {
		mp, err := parseBind(bind, st.VolumeDriver)
		if err != nil {
			return err
		}
		if st.BindsTopRO && mp.Type == "bind" && !mp.RW {
			mp.Spec = &model.Mount{Type: "bind", Source: mp.Source, Target: mp.Destination, ReadOnly: true,
				Bind: &model.BindOptions{CreateMountpoint: true, ReadOnlyNonRecursive: true}}
		}
		if err := r.add(mp, inherited); err != nil {
			return err
		}
	}
	for i := range st.Mounts {
		mp, err := structuredMount(&st.Mounts[i])
		if err != nil {
			return err
		}
		if err := r.add(mp, inherited); err != nil {
			return err
		}
	}
	for dest, options := range st.Tmpfs {
		if err := checkDestination(dest); err != nil {
			return err
		}
		if _, err := ocispec.TmpfsMount(dest, options); err != nil {
			return err
		}
		if path.Clean(dest) == "/proc" {
			return onProc("a tmpfs")
		}
		if _, taken := r.at[path.Clean(dest)]; taken {
			return invalid("Duplicate mount point: %s", dest)
		}
	}
	for _, dest := range slices.Sorted(maps.Keys(st.Volumes)) {
		if err := checkDestination(dest); err != nil {
			return err
		}
		_, tmpfs := st.Tmpfs[dest]
		if _, taken := r.at[path.Clean(dest)]; !taken && !tmpfs {
			r.append(model.MountPoint{Type: "volume", Destination: path.Clean(dest), Driver: st.VolumeDriver, RW: true})
		}
	}
	if len(r.points) > maxMounts {
		return invalid("%d volumes and mounts; a container can have at most %d (an image may declare volumes, too)", len(r.points), maxMounts)
	}
	c.Mounts = r.points
	for _, mp := range c.Mounts {
		if mp.Destination == "/proc" && mp.Type != "bind" {
			return onProc("a mount of type " + mp.Type)
		}
	}
	return nil
}

// onProc refuses what is no procfs at /proc: the runtime, the kernel's security modules and the container's own programs
// believe what they find there.
func onProc(what string) error {
	return invalid("%s cannot be mounted on /proc, which must be the kernel's: choose another destination, or an image that does not declare a volume there", what)
}

// maxMounts bounds what an image can make the daemon do: each volume that it declares is made on disk.
const maxMounts = 1000

type mountResolver struct {
	e      *Engine
	c      *model.Container
	points []model.MountPoint
	at     map[string]int // destination → index in points
}

func (r *mountResolver) append(mp model.MountPoint) {
	r.at[mp.Destination] = len(r.points)
	r.points = append(r.points, mp)
}

// add puts a mount point in; one that volumes-from brought gives way, a second of one's own is an error.
func (r *mountResolver) add(mp model.MountPoint, inherited int) error {
	if i, taken := r.at[mp.Destination]; taken {
		if i >= inherited {
			return invalid("Duplicate mount point: %s", mp.Destination)
		}
		r.points[i] = mp
		return nil
	}
	r.append(mp)
	return nil
}

// volumesFrom takes over the mounts of another container: "name[:ro|rw]".
func (r *mountResolver) volumesFrom(from string) error {
	name, mode, _ := strings.Cut(from, ":")
	if mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
		return invalid("invalid mode %q for volumes-from %s: want ro or rw", mode, name)
	}
	other, err := r.e.find(name)
	if err != nil {
		return errs.As(errs.Invalid, errs.Wrap(err, "volumes-from")) // "not found" would make clients pull the image
	}
	for _, mp := range other.get().Mounts {
		if mp.Type == "tmpfs" {
			continue
		}
		if mode == "ro" {
			mp.RW = false
		}
		if i, taken := r.at[mp.Destination]; taken {
			r.points[i] = mp
		} else {
			r.append(mp)
		}
	}
	return nil
}

func checkDestination(dest string) error {
	if !strings.HasPrefix(dest, "/") {
		return invalid("invalid mount path: '%s' mount path must be absolute", dest)
	}
	if path.Clean(dest) == "/" {
		return invalid("invalid mount path: destination can't be '/'")
	}
	if strings.ContainsAny(dest, "\x00\n") {
		return invalid("invalid mount path: %q contains a NUL byte or a new line", dest)
	}
	return nil
}

// parseBind reads "source:destination[:options]"; a source that is no absolute path is a volume's name.
func parseBind(bind, driver string) (model.MountPoint, error) {
	var mp model.MountPoint
	parts := strings.Split(bind, ":")
	switch len(parts) {
	case 1:
		mp = model.MountPoint{Type: "volume", Destination: parts[0]}
	case 2, 3:
		mp = model.MountPoint{Source: parts[0], Destination: parts[1]}
		if len(parts) == 3 {
			mp.Mode = parts[2]
		}
	default:
		return mp, invalid("invalid volume specification: '%s': want SOURCE:DESTINATION[:OPTIONS]", bind)
	}
	if len(parts) > 1 && parts[0] == "" {
		return mp, invalid("invalid volume specification: '%s': the source is empty", bind)
	}
	if err := checkDestination(mp.Destination); err != nil {
		return mp, invalid("invalid volume specification: '%s': %w", bind, err)
	}
	mp.Destination = path.Clean(mp.Destination)
	mp.RW = true
	if err := bindMode(&mp, bind); err != nil {
		return mp, err
	}
	switch {
	case mp.Type == "volume":
		mp.Driver = driver
	case strings.HasPrefix(mp.Source, "/"):
		mp.Type, mp.Source = "bind", path.Clean(mp.Source)
		if mp.Propagation == "" {
			mp.Propagation = "rprivate"
		}
	default:
		if err := model.ValidateVolumeName(mp.Source); err != nil {
			return mp, errs.Wrap(err, "invalid volume specification '%s'", bind)
		}
		mp.Type, mp.Name, mp.Source, mp.Driver = "volume", mp.Source, "", driver
	}
	return mp, nil
}

// bindMode reads the options of a -v.
func bindMode(mp *model.MountPoint, bind string) error {
	if mp.Mode == "" {
		return nil
	}
	seen := map[string]bool{}
	for opt := range strings.SplitSeq(mp.Mode, ",") {
		class := opt
		switch {
		case opt == "ro", opt == "rw":
			class, mp.RW = "access", opt == "rw"
		case slices.Contains(propagations, opt):
			class, mp.Propagation = "propagation", opt
			if !strings.HasPrefix(mp.Source, "/") {
				return invalid("invalid volume specification: '%s': mount propagation is for directories of the host only", bind)
			}
		case opt == "z", opt == "Z":
			class = "label"
		case strings.HasPrefix(opt, "idmap"):
			class = "idmap"
			if _, _, err := ocispec.MountIDMap(opt); err != nil {
				return invalid("invalid volume specification: '%s': %w", bind, err)
			}
		case opt == "consistent", opt == "cached", opt == "delegated":
			class = "consistency"
		case opt == "nocopy":
			if strings.HasPrefix(mp.Source, "/") {
				return invalid("invalid volume specification: '%s': nocopy is for volumes only", bind)
			}
			mp.Spec = &model.Mount{Type: "volume", Source: mp.Source, Target: mp.Destination, Volume: &model.VolumeOptions{NoCopy: true}}
		default:
			return invalid("invalid volume specification: '%s': unknown mode %q", bind, opt)
		}
		if seen[class] {
			return invalid("invalid volume specification: '%s': mode %q contradicts or repeats an earlier one", bind, opt)
		}
		seen[class] = true
	}
	return nil
}

// structuredMount checks a mount in the structured form.
func structuredMount(m *model.Mount) (model.MountPoint, error) {
	bad := func(format string, args ...any) (model.MountPoint, error) {
		return model.MountPoint{}, errs.Wrap(invalid(format, args...), "invalid mount config for type %q", m.Type)
	}
	if m.Target == "" {
		return bad("field Target must not be empty")
	}
	if err := checkDestination(m.Target); err != nil {
		return bad("%w", err)
	}
	for kind, has := range map[string]bool{"bind": m.Bind != nil, "volume": m.Volume != nil, "tmpfs": m.Tmpfs != nil, "image": m.Image != nil} {
		if has && kind != m.Type && !(kind == "bind" && *m.Bind == model.BindOptions{}) {
			return bad("field %sOptions must not be specified", strings.ToUpper(kind[:1])+kind[1:])
		}
	}
	mp := model.MountPoint{Type: m.Type, Destination: path.Clean(m.Target), RW: !m.ReadOnly, Spec: m}
	switch m.Type {
	case "bind":
		if !strings.HasPrefix(m.Source, "/") {
			return bad("invalid mount path: '%s' mount path must be absolute", m.Source)
		}
		mp.Source, mp.Propagation = path.Clean(m.Source), "rprivate"
		if m.Bind != nil && m.Bind.Propagation != "" {
			if !slices.Contains(propagations, m.Bind.Propagation) {
				return bad("invalid propagation mode: %s; known are: %s", m.Bind.Propagation, strings.Join(propagations, ", "))
			}
			mp.Propagation = m.Bind.Propagation
		}
		if err := checkReadOnly(m, mp.Propagation); err != nil {
			return bad("%w", err)
		}
	case "volume":
		if m.Source != "" {
			if err := model.ValidateVolumeName(m.Source); err != nil {
				return bad("%w", err)
			}
		}
		mp.Name = m.Source
		if v := m.Volume; v != nil {
			mp.Driver = v.DriverName
			if v.Subpath != "" && !filepath.IsLocal(v.Subpath) {
				return bad("volume subpath %q must be a relative path within the volume", v.Subpath)
			}
		}
	case "tmpfs":
		if m.Source != "" {
			return bad("field Source must not be specified")
		}
		if _, err := ocispec.StructuredTmpfs(mp); err != nil {
			return bad("%w", err)
		}
		if m.Tmpfs != nil && m.Tmpfs.SizeBytes < 0 {
			return bad("field TmpfsOptions.SizeBytes must not be negative")
		}
	case "image":
		if m.Source == "" {
			return bad("field Source must not be empty: it is the image")
		}
		if m.Image != nil && m.Image.Subpath != "" && !filepath.IsLocal(m.Image.Subpath) {
			return bad("image subpath %q must be a relative path within the image", m.Image.Subpath)
		}
		mp.Source, mp.RW = m.Source, false
	default:
		return model.MountPoint{}, invalid("mount type unknown: %q; known are bind, volume, tmpfs and image", m.Type)
	}
	return mp, nil
}

// checkReadOnly refuses choices of how deep a bind mount is read-only that contradict each other.
func checkReadOnly(m *model.Mount, propagation string) error {
	b := m.Bind
	switch {
	case b == nil || !b.ReadOnlyNonRecursive && !b.ReadOnlyForceRecursive:
		return nil
	case !m.ReadOnly:
		return invalid("mount options conflict: a mount that is not read-only cannot be read-only recursively or not; add readonly")
	case !b.ReadOnlyForceRecursive:
		return nil
	case b.ReadOnlyNonRecursive:
		return invalid("mount options conflict: ReadOnlyForceRecursive && BindOptions.ReadOnlyNonRecursive")
	case b.NonRecursive:
		return invalid("mount options conflict: ReadOnlyForceRecursive && BindOptions.NonRecursive")
	case propagation != "rprivate":
		return invalid("mount options conflict: ReadOnlyForceRecursive needs the propagation rprivate, not %s: mounts that appear later would be writable", propagation)
	}
	return nil
}

// createVolumes makes and holds the volumes of the container, and the missing directories that -v names.
func (e *Engine) createVolumes(ctx context.Context, c *model.Container, undo func(func())) error {
	mounts := slices.Clone(c.Mounts)
	for i := range mounts {
		mp := &mounts[i]
		switch mp.Type {
		case "bind":
			if err := checkBindSource(mp); err != nil {
				return err
			}
			if b := mp.Spec; b != nil && b.Bind != nil && b.Bind.ReadOnlyForceRecursive && !e.cfg.Host.RRO {
				return errs.New(errs.Unsupported, "mount on %s: this kernel cannot make a mount read-only recursively; Linux 5.12 can", mp.Destination)
			}
		case "volume":
			if err := e.createVolume(ctx, c, mp, undo); err != nil {
				return err
			}
		case "image":
			img, err := e.ports.Images.Resolve(ctx, mp.Source, "")
			if err != nil {
				return errs.Wrap(err, "image mount on %s", mp.Destination)
			}
			mp.Name = img.ID
			holder := imageMountHolder(c.ID, mp.Destination)
			if err := e.ports.Images.Use(ctx, holder, img.ID); err != nil {
				return errs.Wrap(err, "image mount on %s", mp.Destination)
			}
			undo(func() { e.ports.Images.Release(context.WithoutCancel(ctx), holder) })
		}
	}
	c.Mounts = mounts
	return nil
}

// imageMountHolder names the use that a container makes of an image that it mounts.
func imageMountHolder(id, dest string) string { return id + ":" + dest }

func (e *Engine) createVolume(ctx context.Context, c *model.Container, mp *model.MountPoint, undo func(func())) error {
	want := model.Volume{Name: mp.Name, Driver: mp.Driver}
	if want.Name == "" {
		want.Name, want.Anonymous = ids.New(), true
	}
	if mp.Spec != nil && mp.Spec.Volume != nil {
		want.Labels, want.Options = mp.Spec.Volume.Labels, mp.Spec.Volume.DriverOptions
	}
	vol, err := e.holdVolume(ctx, want, c.ID)
	if err != nil {
		return errs.Wrap(err, "volume %q for %s", want.Name, mp.Destination)
	}
	mp.Name, mp.Driver, mp.Source = vol.Name, vol.Driver, vol.Mountpoint
	undo(func() {
		ctx := context.WithoutCancel(ctx)
		e.ports.Volumes.Release(ctx, vol.Name, c.ID)
		if want.Anonymous {
			e.ports.Volumes.Remove(ctx, vol.Name, true)
		}
	})
	return nil
}

// holdVolume makes a volume, or takes the one that is there, for a container. Somebody may remove it between the two steps.
func (e *Engine) holdVolume(ctx context.Context, want model.Volume, id string) (vol model.Volume, err error) {
	for range 3 {
		if vol, err = e.ports.Volumes.Create(ctx, want); err != nil {
			return vol, err
		}
		if err = e.ports.Volumes.Use(ctx, vol.Name, id, false); !errs.Is(err, errs.NotFound) {
			return vol, err
		}
	}
	return vol, err
}

// checkBindSource finds the directory on the host; -v makes a missing one, as Docker's users expect, --mount does not.
func checkBindSource(mp *model.MountPoint) error {
	_, err := os.Stat(mp.Source)
	if mp.Destination == "/proc" && err == nil {
		var st unix.Statfs_t
		if unix.Statfs(mp.Source, &st) != nil || st.Type != unix.PROC_SUPER_MAGIC {
			return onProc("the directory " + mp.Source)
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return errs.As(errs.Invalid, errs.Wrap(err, "bind mount on %s", mp.Destination))
		}
		return nil
	}
	if mp.Spec != nil && (mp.Spec.Bind == nil || !mp.Spec.Bind.CreateMountpoint) {
		return errs.Wrap(invalid("bind source path does not exist: %s; make it first, or use -v, which does", mp.Source),
			"invalid mount config for type %q", "bind")
	}
	if err := os.MkdirAll(mp.Source, 0o755); err != nil {
		return errs.Wrap(err, "bind mount on %s: make the missing directory on the host", mp.Destination)
	}
	return nil
}
