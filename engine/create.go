package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/engine/record"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/projquota"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
)

// Create makes a container: image, name, mounts and writable layer are settled, and nothing runs yet. When it fails
// nothing is left behind.
func (e *Engine) Create(ctx context.Context, r model.CreateRequest) (model.CreateResult, error) {
	return e.create(ctx, r, nil)
}

// CreateWithChanges is Create of a container that another engine had: fill writes what it changed into the empty writable
// layer.
func (e *Engine) CreateWithChanges(ctx context.Context, r model.CreateRequest, fill func(upper string) error) (model.CreateResult, error) {
	return e.create(ctx, r, fill)
}

func (e *Engine) create(ctx context.Context, r model.CreateRequest, fill func(upper string) error) (model.CreateResult, error) {
	if r.Name = strings.TrimPrefix(r.Name, "/"); r.Name != "" {
		if err := validName(r.Name); err != nil {
			return model.CreateResult{}, err
		}
	}
	if r.Image == "" {
		return model.CreateResult{}, invalid("no image given: a container needs the name or ID of the image it is made from")
	}
	img, err := e.ports.Images.Resolve(ctx, r.Image, r.Platform)
	if err != nil {
		return model.CreateResult{}, err
	}
	c := &model.Container{ID: ids.New(), Created: e.now(), Spec: r.Spec}
	c.State.Status = model.StatusCreated
	c.Image = model.ContainerImage{Ref: r.Image, ID: img.ID, Digest: img.Manifest.Digest, Type: img.Manifest.MediaType, Size: img.Manifest.Size, Platform: img.Platform.String()}
	warnings, err := e.settle(c, img.Config)
	if err != nil {
		return model.CreateResult{}, err
	}
	if r.Platform == "" && !runsOn(img.Platform.Architecture, e.cfg.Host.Arch) {
		warnings = append(warnings, fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (linux/%s) and no specific platform was requested", img.Platform, e.cfg.Host.Arch))
	}
	var u undo.Stack
	defer u.Run()
	if err := e.name(c, r.Name); err != nil {
		return model.CreateResult{}, err
	}
	u.Add(func() { e.index.release(c.Name, c.ID) })
	if err := e.settleLabels(c, u.Add); err != nil {
		return model.CreateResult{}, err
	}
	if err := e.build(ctx, c, fill, u.Add); err != nil {
		return model.CreateResult{}, errs.Wrap(err, "create container %s", c.Name)
	}
	if err := e.index.add(newEntry(c)); err != nil {
		return model.CreateResult{}, err
	}
	u.Release()
	e.publish(c, "create", nil)
	return model.CreateResult{ID: c.ID, Warnings: warnings}, nil
}

// runsOn says whether processors of the host run programs of that architecture by themselves. An image may name none.
func runsOn(architecture, host string) bool {
	return architecture == "" || architecture == host || architecture == "386" && host == "amd64" || architecture == "arm" && host == "arm64"
}

// settle merges the image's values and the daemon's defaults into the spec, checks it and decides what every start does.
func (e *Engine) settle(c *model.Container, img model.ImageConfig) (warnings []string, err error) {
	s := &c.Spec
	if err := merge(s, img); err != nil {
		return nil, err
	}
	d := e.defaults.Load()
	if s.Network.Mode == "" || s.Network.Mode == "default" {
		s.Network.Mode = model.NetworkBridge
		if d.NetworkDisabled {
			s.Network.Mode = model.NetworkNone
		}
	}
	if s.Network.Disabled {
		s.Network.Mode = model.NetworkNone
	}
	s.Log.Driver = cmp.Or(s.Log.Driver, d.Log.Driver)
	if s.Log.Driver == d.Log.Driver && len(d.Log.Options) > 0 {
		opts := maps.Clone(d.Log.Options)
		maps.Copy(opts, s.Log.Options)
		s.Log.Options = opts
	}
	s.Isolation.IPC = cmp.Or(s.Isolation.IPC, d.IPC)
	s.Isolation.Cgroup = cmp.Or(s.Isolation.Cgroup, d.CgroupNS)
	s.Storage.ShmSize = cmp.Or(s.Storage.ShmSize, d.ShmSize)
	if s.Storage.ShmSize < 0 {
		return nil, invalid("SHM size can not be less than 0: it is %d", s.Storage.ShmSize)
	}
	if s.Resources.Memory.OomKillDisable == nil && !e.cfg.Host.CgroupV2 {
		s.Resources.Memory.OomKillDisable = new(bool) // as Docker shows it
	}
	if warnings, err = e.validate(s); err != nil {
		return nil, err
	}
	settlePaths(&s.Security, e.cfg.Host)
	if err := e.pinJoins(s); err != nil {
		return nil, err
	}
	e.settleEndpoints(c)
	for _, link := range s.Network.Links {
		if _, err := e.linked(link); err != nil {
			return nil, err
		}
	}
	if err := e.resolveMounts(c); err != nil {
		return nil, err
	}
	argv := append(slices.Clone(s.Process.Entrypoint), s.Process.Cmd...)
	c.Runtime.Path, c.Runtime.Args = argv[0], argv[1:]
	c.Runtime.Name = cmp.Or(s.Options.Runtime, d.Runtime)
	settleHostname(c, e.cfg.Hostname)
	return warnings, nil
}

// settlePaths writes down which paths are hidden, so that inspect shows what holds. A privileged container has none.
func settlePaths(s *model.SecuritySpec, h ocispec.Host) {
	sec, err := ocispec.ParseSecurity(s.Options)
	if err != nil || s.Privileged {
		return
	}
	masked, readonly := ocispec.HiddenPaths(*s, sec, h.Thermal)
	s.MaskedPaths, s.ReadonlyPaths = &masked, &readonly
}

// settleHostname gives the container its short ID as its name, or the machine's where it shares that.
func settleHostname(c *model.Container, machine string) {
	s := &c.Spec
	switch {
	case s.Network.Hostname != "" || strings.HasPrefix(s.Network.Mode, "container:"):
	case s.Network.Mode == model.NetworkHost || s.Isolation.UTS == "host":
		s.Network.Hostname = machine
	default:
		s.Network.Hostname = ids.Short(c.ID)
	}
}

// pinJoins replaces names of containers whose namespaces are joined by IDs, so that renaming them changes nothing.
func (e *Engine) pinJoins(s *model.ContainerSpec) error {
	for what, mode := range map[string]*string{"network": &s.Network.Mode, "IPC": &s.Isolation.IPC, "PID": &s.Isolation.PID} {
		name, join := strings.CutPrefix(*mode, "container:")
		if !join {
			continue
		}
		other, err := e.find(name)
		if err != nil {
			return errs.As(errs.Invalid, errs.Wrap(err, "cannot join the %s namespace", what)) // "not found" would make clients pull the image
		}
		*mode = "container:" + other.id
	}
	return nil
}

// settleEndpoints makes sure that the network of the mode is among the endpoints, and moves the old single MAC address
// there.
func (e *Engine) settleEndpoints(c *model.Container) {
	n := &c.Spec.Network
	if strings.HasPrefix(n.Mode, "container:") {
		n.Endpoints = nil
		return
	}
	eps := map[string]model.EndpointSpec{}
	for name, spec := range n.Endpoints {
		if name == "default" {
			name = model.NetworkBridge
		}
		eps[name] = spec
	}
	ep := eps[n.Mode]
	if n.MacAddress != "" && ep.MAC.IsZero() {
		ep.MAC, _ = model.ParseMAC(n.MacAddress) // validated
	}
	eps[n.Mode] = ep
	if n.Mode == model.NetworkHost || n.Mode == model.NetworkNone {
		eps = map[string]model.EndpointSpec{n.Mode: ep}
	}
	n.Endpoints = eps
}

// name takes the name asked for, or makes one up.
func (e *Engine) name(c *model.Container, asked string) error {
	if asked != "" {
		c.Name = asked
		return e.index.reserve(asked, c.ID)
	}
	var err error
	for attempt := range 20 {
		c.Name = e.cfg.Names(attempt)
		if err = e.index.reserve(c.Name, c.ID); err == nil {
			return nil
		}
	}
	c.Name = ids.Short(c.ID)
	return e.index.reserve(c.Name, c.ID)
}

// build makes what the container needs on disk and records it; the record is the last step: without it, the next start
// of the daemon removes the rest.
func (e *Engine) build(ctx context.Context, c *model.Container, fill func(upper string) error, undo func(func())) error {
	if err := e.ports.Images.Use(ctx, c.ID, c.Image.ID); err != nil {
		return err
	}
	undo(func() { e.ports.Images.Release(context.WithoutCancel(ctx), c.ID) })
	if err := failpoint.Hit("engine/create/image"); err != nil {
		return err
	}
	dir, err := e.records.Create(c.ID)
	if err != nil {
		return err
	}
	undo(func() {
		if dispose, err := e.records.Remove(c.ID); err == nil {
			dispose()
		}
	})
	if err := limitLayer(c, dir, undo); err != nil {
		return err
	}
	if fill != nil {
		if err := e.fillLayer(c, filepath.Join(dir, record.UpperDir), fill); err != nil {
			return err
		}
	}
	if err := e.createVolumes(ctx, c, undo); err != nil {
		return err
	}
	if err := failpoint.Hit("engine/create/volumes"); err != nil {
		return err
	}
	if err := e.fillVolumes(ctx, c); err != nil {
		return err
	}
	e.nameFiles(c)
	c.Runtime.LogPath = logPath(c, dir)
	if err := failpoint.Hit("engine/create/record"); err != nil {
		return err
	}
	return e.records.SaveNew(c, !c.Spec.Options.AutoRemove)
}

// fillLayer lets fill write the writable layer, and waits until it is on the disk.
func (e *Engine) fillLayer(c *model.Container, upper string, fill func(upper string) error) error {
	if e.idMaps(c) != nil {
		return errs.New(errs.Unsupported, "its changed files belong to other users than they would here, with user namespaces (userns-remap); commit them to an image with the engine that made them")
	}
	if err := fill(upper); err != nil {
		return errs.Wrap(err, "copy its changed files")
	}
	f, err := os.Open(upper)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// limitLayer bounds a container's writable layer by --storage-opt size. The directory that overlay works in counts, too,
// because files are moved out of it.
func limitLayer(c *model.Container, dir string, undo func(func())) error {
	size := c.Spec.Options.StorageOpt["size"]
	if size == "" {
		return nil
	}
	bytes, err := units.RAMInBytes(size)
	if err == nil {
		err = projquota.Limit(uint64(bytes), filepath.Join(dir, record.UpperDir), filepath.Join(dir, record.WorkDir))
	}
	if err != nil {
		return errs.Wrap(err, "--storage-opt size=%s", size)
	}
	undo(func() { releaseLayer(c, dir) })
	return nil
}

// releaseLayer takes the bound of a container's layer away, before its directory goes. The directory is not to be used again
// for another container: what is left in it belongs to the old one's project.
func releaseLayer(c *model.Container, dir string) error {
	if c.Spec.Options.StorageOpt["size"] == "" {
		return nil
	}
	if err := projquota.Release(filepath.Join(dir, record.UpperDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, record.WorkDir))
}

// fillVolumes copies the image's content into volumes that are empty. A volume that has data already is not looked at
// again, nor one that was asked for with nocopy.
func (e *Engine) fillVolumes(ctx context.Context, c *model.Container) error {
	var lowers []string
	for _, mp := range c.Mounts {
		if mp.Type != "volume" || mp.Spec != nil && mp.Spec.Volume != nil && mp.Spec.Volume.NoCopy {
			continue
		}
		if lowers == nil {
			var err error
			if lowers, err = e.ports.Images.Lowers(ctx, c.Image.ID); err != nil {
				return err
			}
		}
		if err := e.ports.Volumes.Fill(ctx, mp.Name, lowers, mp.Destination, mp.Subpath()); err != nil {
			return errs.Wrap(err, "copy the image's files at %s into volume %q", mp.Destination, mp.Name)
		}
	}
	return nil
}

// makeNameFiles makes, before a start, the files that are bound into the container for name resolution; the addresses come
// later. They are on a tmpfs, because every start makes them anew. Containers may write to them, and so fill it: then they
// are on disk, where the container can fill no more than with its other files. It gives the container with their paths.
func (e *Engine) makeNameFiles(en *entry) (*model.Container, error) {
	c := en.get()
	if err := e.records.MakeRunDir(c.ID); err != nil {
		return c, err
	}
	if strings.HasPrefix(c.Spec.Network.Mode, "container:") {
		return c, nil // it gets those of the container whose network it shares
	}
	dir, err := e.writeEmptyNames(c, false)
	if errors.Is(err, unix.ENOSPC) {
		e.cfg.Log.Warn("containers have filled the place for /etc/hosts and its like; those of this one are on disk", "container", c.ID)
		dir, err = e.writeEmptyNames(c, true)
	}
	if err != nil {
		return c, err
	}
	if hosts := filepath.Join(dir, "hosts"); hosts != c.Runtime.HostsPath {
		known := c.Runtime.HostsPath != ""
		c = en.edit(func(c *model.Container) { setNamePaths(c, dir) })
		if known { // where they are now, a daemon that is started again must know
			err = e.records.SaveSpec(c, !c.Spec.Options.AutoRemove)
		}
	}
	return c, err
}

// nameFiles says where the files for name resolution usually are.
func (e *Engine) nameFiles(c *model.Container) {
	if !strings.HasPrefix(c.Spec.Network.Mode, "container:") {
		setNamePaths(c, filepath.Join(e.cfg.ExecRoot, record.NamesDir, c.ID))
	}
}

func setNamePaths(c *model.Container, dir string) {
	c.Runtime.HostnamePath = filepath.Join(dir, "hostname")
	c.Runtime.HostsPath = filepath.Join(dir, "hosts")
	c.Runtime.ResolvConfPath = filepath.Join(dir, "resolv.conf")
}

// writeEmptyNames makes the files. None is empty, so that each has got its page when the addresses come.
func (e *Engine) writeEmptyNames(c *model.Container, disk bool) (string, error) {
	dir, err := e.records.MakeNamesDir(c.ID, disk)
	if err != nil {
		return "", err
	}
	for name, content := range map[string]string{"hostname": c.Spec.Network.Hostname + "\n", "hosts": "\n", "resolv.conf": "\n"} {
		path := filepath.Join(dir, name)
		if err := writeInPlace(path, []byte(content)); err != nil {
			return "", err
		}
		if m := e.idMaps(c); m != nil {
			if uid, gid := m.Root(); os.Chown(path, uid, gid) != nil {
				return "", errs.New(errs.Internal, "give %s to the container's root (%d:%d)", path, uid, gid)
			}
		}
	}
	return dir, nil
}

// writeInPlace changes a file's content and keeps the file, which is bound into the container, and its first page, which
// it might not get again.
func writeInPlace(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// logPath is the file of the log drivers that write one. Other drivers get the path of their local cache.
func logPath(c *model.Container, dir string) string {
	switch c.Spec.Log.Driver {
	case "json-file":
		return filepath.Join(dir, c.ID+"-json.log")
	case "none":
		return ""
	}
	return filepath.Join(dir, "local-logs", "container.log")
}
