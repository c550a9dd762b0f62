package convert

import (
	"io/fs"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func storageSpec(cfg *container.Config, hc *container.HostConfig) (model.StorageSpec, error) {
	s := model.StorageSpec{Binds: hc.Binds, Tmpfs: hc.Tmpfs, Volumes: cfg.Volumes, VolumesFrom: hc.VolumesFrom,
		VolumeDriver: hc.VolumeDriver, ReadonlyRootfs: hc.ReadonlyRootfs, ShmSize: hc.ShmSize}
	for i := range hc.Mounts {
		m, err := Mount(&hc.Mounts[i])
		if err != nil {
			return s, err
		}
		s.Mounts = append(s.Mounts, m)
	}
	return s, nil
}

// Mount maps a structured mount, and refuses kinds that do not exist on a single Linux node and options of another kind.
func Mount(m *mount.Mount) (model.Mount, error) {
	out := model.Mount{Type: string(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Consistency: string(m.Consistency)}
	switch m.Type {
	case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
	case mount.TypeNamedPipe:
		return out, errs.New(errs.Invalid, "mount at %q: type npipe exists on Windows only; use bind, volume, tmpfs or image", m.Target)
	case mount.TypeCluster:
		return out, errs.New(errs.Invalid, "mount at %q: a cluster volume can only be used by a service", m.Target)
	default:
		return out, errs.New(errs.Invalid, "mount at %q: unknown type %q; use bind, volume, tmpfs or image", m.Target, m.Type)
	}
	for _, o := range []struct {
		set  bool
		of   mount.Type
		name string
	}{
		{m.BindOptions != nil, mount.TypeBind, "BindOptions"}, {m.VolumeOptions != nil, mount.TypeVolume, "VolumeOptions"},
		{m.TmpfsOptions != nil, mount.TypeTmpfs, "TmpfsOptions"}, {m.ImageOptions != nil, mount.TypeImage, "ImageOptions"},
		{m.ClusterOptions != nil, mount.TypeCluster, "ClusterOptions"},
	} {
		if o.set && o.of != m.Type {
			return out, errs.New(errs.Invalid, "mount at %q: %s is for mounts of type %s, this one is of type %s; leave it out", m.Target, o.name, o.of, m.Type)
		}
	}
	if o := m.BindOptions; o != nil {
		out.Bind = &model.BindOptions{Propagation: string(o.Propagation), NonRecursive: o.NonRecursive, CreateMountpoint: o.CreateMountpoint,
			ReadOnlyNonRecursive: o.ReadOnlyNonRecursive, ReadOnlyForceRecursive: o.ReadOnlyForceRecursive}
	}
	if o := m.VolumeOptions; o != nil {
		out.Volume = &model.VolumeOptions{NoCopy: o.NoCopy, Labels: o.Labels, Subpath: o.Subpath}
		if d := o.DriverConfig; d != nil {
			out.Volume.HasDriver, out.Volume.DriverName, out.Volume.DriverOptions = true, d.Name, d.Options
		}
	}
	if o := m.ImageOptions; o != nil {
		out.Image = &model.ImageMountOptions{Subpath: o.Subpath}
	}
	if o := m.TmpfsOptions; o != nil {
		out.Tmpfs = &model.TmpfsOptions{SizeBytes: o.SizeBytes, Mode: uint32(o.Mode), Options: o.Options}
	}
	return out, nil
}

// toMount is Mount's way back.
func toMount(m *model.Mount) mount.Mount {
	out := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Consistency: mount.Consistency(m.Consistency)}
	if o := m.Bind; o != nil {
		out.BindOptions = &mount.BindOptions{Propagation: mount.Propagation(o.Propagation), NonRecursive: o.NonRecursive, CreateMountpoint: o.CreateMountpoint,
			ReadOnlyNonRecursive: o.ReadOnlyNonRecursive, ReadOnlyForceRecursive: o.ReadOnlyForceRecursive}
	}
	if o := m.Volume; o != nil {
		out.VolumeOptions = &mount.VolumeOptions{NoCopy: o.NoCopy, Labels: o.Labels, Subpath: o.Subpath}
		if o.HasDriver {
			out.VolumeOptions.DriverConfig = &mount.Driver{Name: o.DriverName, Options: o.DriverOptions}
		}
	}
	if o := m.Image; o != nil {
		out.ImageOptions = &mount.ImageOptions{Subpath: o.Subpath}
	}
	if o := m.Tmpfs; o != nil {
		out.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: o.SizeBytes, Mode: fs.FileMode(o.Mode), Options: o.Options}
	}
	return out
}

func toMountPoints(in []model.MountPoint) []container.MountPoint {
	out := make([]container.MountPoint, 0, len(in))
	for _, m := range in {
		out = append(out, container.MountPoint{Type: mount.Type(m.Type), Name: m.Name, Source: m.Source, Destination: m.Destination,
			Driver: m.Driver, Mode: m.Mode, RW: m.RW, Propagation: mount.Propagation(m.Propagation)})
	}
	return out
}
