package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/engine/record"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// startPlan is what a start hands to the supervisor.
type startPlan struct {
	spec *specs.Spec
	root model.OverlayDirs
}

// baseDir has the mount points that images lack. It is the lowest layer of every container, so that what an image has
// wins, and so that making the mount points is no change of the container.
const baseDir = "baselayer"

// rootfsDir is where every container mounts its root, each inside its own mount namespace.
const rootfsDir = "rootfs"

// overlay gives the directories of a container's root filesystem.
func (e *Engine) overlay(ctx context.Context, c *model.Container) (model.OverlayDirs, error) {
	dir := e.records.Dir(c.ID)
	dirs := model.OverlayDirs{Upper: filepath.Join(dir, record.UpperDir), Work: filepath.Join(dir, record.WorkDir)}
	lowers, err := e.ports.Images.Lowers(ctx, c.Image.ID)
	if err != nil {
		return dirs, err
	}
	dirs.Lower = append(append(make([]string, 0, len(lowers)+1), lowers...), filepath.Join(e.cfg.Root, baseDir))
	return dirs, nil
}

// makeBase makes the lowest layer and the mount point of root filesystems.
func (e *Engine) makeBase() error {
	base := filepath.Join(e.cfg.Root, baseDir)
	for _, dir := range []string{"dev/pts", "dev/shm", "proc", "sys", "etc"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			return errs.Wrap(err, "make the base layer of containers")
		}
	}
	for _, file := range []string{".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		f, err := os.OpenFile(filepath.Join(base, file), os.O_CREATE|os.O_RDONLY, 0o755)
		if err != nil {
			return errs.Wrap(err, "make the base layer of containers")
		}
		f.Close()
	}
	if err := os.Symlink("/proc/mounts", filepath.Join(base, "etc/mtab")); err != nil && !os.IsExist(err) {
		return errs.Wrap(err, "make the base layer of containers")
	}
	return errs.Wrap(os.MkdirAll(filepath.Join(e.cfg.ExecRoot, rootfsDir), 0o700), "make the mount point of containers")
}

// plan looks up everything that a start needs and makes the OCI configuration.
func (e *Engine) plan(ctx context.Context, c *model.Container, undo func(func())) (*startPlan, error) {
	if err := e.checkLinks(c); err != nil {
		return nil, err
	}
	if err := e.checkSharedUser(c); err != nil {
		return nil, err
	}
	root, err := e.overlay(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.Spec.Options.AutoRemove { // a restart of one that is not removed yet
		if err := record.Remountable(e.records.Dir(c.ID)); err != nil {
			return nil, errs.Wrap(err, "prepare the writable layer")
		}
	}
	who, err := e.lookupUser(ctx, userDatabase{dirs: root}, c.Spec.Process.User, c.Spec.Security.GroupAdd)
	if err != nil {
		return nil, err
	}
	mounts, err := e.planMounts(ctx, c, undo)
	if err != nil {
		return nil, err
	}
	joins, err := e.planJoins(c)
	if err != nil {
		return nil, err
	}
	devices, err := lookupDevices(c)
	if err != nil {
		return nil, err
	}
	d := e.defaults.Load()
	in := ocispec.Input{
		Container: c, Host: e.cfg.Host, RootPath: filepath.Join(e.cfg.ExecRoot, rootfsDir), User: who, Mounts: mounts,
		Joins: joins, Devices: devices, Limits: d.Limits, Seccomp: e.seccomp(d), IDMaps: e.idMaps(c),
	}
	if c.Spec.Isolation.UTS != "host" {
		in.Hostname = c.Spec.Network.Hostname
		if id := sharedNetwork(&c.Spec); id != "" {
			if other, err := e.find(id); err == nil {
				in.Hostname = other.get().Spec.Network.Hostname
			}
		}
	}
	spec, err := ocispec.Build(in)
	if err != nil {
		return nil, err
	}
	spec.Process.Env = e.withLinks(c, spec.Process.Env)
	if err := e.injectDevices(spec, c.Spec.Resources.DeviceRequest); err != nil {
		return nil, err
	}
	if initWanted(c, d) {
		if err := e.setInit(spec); err != nil {
			return nil, err
		}
	}
	return &startPlan{spec: spec, root: root}, nil
}

// seccomp puts the daemon's own default profile in the place of the built-in one.
func (e *Engine) seccomp(d *Defaults) ocispec.SeccompSource {
	source := e.cfg.Seccomp
	switch d.Seccomp {
	case "", "builtin":
	case "unconfined":
		source.Default = func(*specs.Spec) (*specs.LinuxSeccomp, error) { return nil, nil }
	default:
		profile := d.Seccomp
		source.Default = func(s *specs.Spec) (*specs.LinuxSeccomp, error) { return source.Load(profile, s) }
	}
	return source
}

// initInside is where the init of --init is seen in a container.
const initInside = "/sbin/docker-init"

func initWanted(c *model.Container, d *Defaults) bool {
	if iso := c.Spec.Isolation.PID; iso == "host" || strings.HasPrefix(iso, "container:") {
		return c.Spec.Options.Init != nil && *c.Spec.Options.Init // not by default: another process is number 1 there
	}
	if c.Spec.Options.Init != nil {
		return *c.Spec.Options.Init
	}
	return d.Init
}

// setInit puts the init in front of the container's program. It is a copy, made once, so that nothing that happens to the
// file in a container can touch the program that the engine itself starts.
func (e *Engine) setInit(s *specs.Spec) error {
	if e.cfg.InitProgram == "" {
		return errs.New(errs.Unsupported, "--init: this daemon has no init program; leave the option out")
	}
	e.initOnce.Do(func() { e.initErr = copyProgram(e.cfg.InitProgram, e.initPath()) })
	if e.initErr != nil {
		return errs.Wrap(e.initErr, "--init")
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: initInside, Type: "bind", Source: e.initPath(), Options: []string{"bind", "ro", "nosuid", "nodev"}})
	s.Process.Args = append([]string{initInside, "--"}, s.Process.Args...)
	return nil
}

func (e *Engine) initPath() string { return filepath.Join(e.cfg.ExecRoot, "docker-init") }

// copyProgram copies an executable to a new file; containers that run the old one keep it.
func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	temp := to + ".new"
	os.Remove(temp)
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o555)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, to)
	}
	return err
}

// nsPath names a namespace of a process.
func nsPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/ns/" + name }

// planJoins finds the namespaces of other containers and of the machine that the container shares. The network's is
// handed over as a file.
func (e *Engine) planJoins(c *model.Container) (map[specs.LinuxNamespaceType]string, error) {
	joins := map[specs.LinuxNamespaceType]string{}
	for _, j := range []struct {
		kind       specs.LinuxNamespaceType
		what, mode string
		name       string
	}{
		{specs.IPCNamespace, "IPC", c.Spec.Isolation.IPC, "ipc"}, {specs.PIDNamespace, "PID", c.Spec.Isolation.PID, "pid"},
	} {
		id, join := strings.CutPrefix(j.mode, "container:")
		if !join {
			continue
		}
		_, pid, err := e.joinTask(id, j.what)
		if err != nil {
			return nil, err
		}
		if other, err := e.find(id); err == nil && j.kind == specs.IPCNamespace {
			if mode := other.get().Spec.Isolation.IPC; mode != "shareable" && mode != "host" && !strings.HasPrefix(mode, "container:") {
				return nil, errs.New(errs.Invalid, "cannot join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", ids.Short(id))
			}
		}
		joins[j.kind] = nsPath(pid, j.name)
	}
	return joins, nil
}

// shmDir is the shared memory directory of a container that shares its own.
func (e *Engine) shmDir(id string) string { return filepath.Join(e.cfg.ExecRoot, "shm", id) }

// planShm says what /dev/shm is, and mounts it on the host only where another container may join it.
func (e *Engine) planShm(c *model.Container, undo func(func())) (ocispec.Shm, error) {
	mode := c.Spec.Isolation.IPC
	if id, join := strings.CutPrefix(mode, "container:"); join {
		if other, err := e.find(id); err == nil && other.get().Spec.Isolation.IPC == "host" {
			return ocispec.Shm{Source: "/dev/shm"}, nil
		}
		return ocispec.Shm{Source: e.shmDir(id)}, nil
	}
	switch mode {
	case "host":
		return ocispec.Shm{Source: "/dev/shm"}, nil
	case "shareable":
		dir := e.shmDir(c.ID)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return ocispec.Shm{}, errs.Wrap(err, "shared memory")
		}
		if err := e.ports.RootFS.SharedMemory(dir, c.Spec.Storage.ShmSize); err != nil {
			return ocispec.Shm{}, errs.Wrap(err, "shared memory")
		}
		undo(func() { e.dropShm(c.ID) })
		return ocispec.Shm{Source: dir}, nil
	}
	return ocispec.Shm{Size: c.Spec.Storage.ShmSize}, nil
}

func (e *Engine) dropShm(id string) {
	dir := e.shmDir(id)
	if _, err := os.Stat(dir); err != nil {
		return
	}
	e.ports.RootFS.SharedMemory(dir, 0)
	os.Remove(dir)
}

// planMounts mounts the volumes and lists all mounts.
func (e *Engine) planMounts(ctx context.Context, c *model.Container, undo func(func())) ([]specs.Mount, error) {
	shm, err := e.planShm(c, undo)
	if err != nil {
		return nil, err
	}
	in := ocispec.MountInput{Container: c, Host: e.cfg.Host, Shm: shm, Files: true, Mapped: e.idMaps(c) != nil,
		Volumes: map[string]model.VolumeMount{}, Images: map[string][]string{}}
	if id := sharedNetwork(&c.Spec); id != "" {
		in.Container = withFilesOf(c, e, id)
	}
	for _, mp := range c.Mounts {
		switch mp.Type {
		case "bind":
			if _, err := os.Stat(mp.Source); err != nil {
				return nil, invalid("invalid mount config for type \"bind\": bind source path does not exist: %s (for %s)", mp.Source, mp.Destination)
			}
			if err := checkPropagation(&mp); err != nil {
				return nil, err
			}
			if err := e.relabel(c, &mp, mp.Source); err != nil {
				return nil, err
			}
		case "volume":
			vm, err := e.ports.Volumes.Mount(ctx, mp.Name, c.ID)
			if err != nil {
				return nil, errs.Wrap(err, "mount volume %q on %s", mp.Name, mp.Destination)
			}
			undo(func() { e.ports.Volumes.Unmount(context.WithoutCancel(ctx), mp.Name, c.ID) })
			if vm.Type == "bind" {
				if err := e.relabel(c, &mp, vm.Source); err != nil {
					return nil, err
				}
			}
			in.Volumes[mp.Destination] = vm
			e.publishVolume("mount", c.ID, mp)
		case "image":
			lowers, err := e.ports.Images.Lowers(ctx, mp.Name)
			if err != nil {
				return nil, errs.Wrap(err, "image mount on %s", mp.Destination)
			}
			in.Images[mp.Destination] = lowers
		}
	}
	return ocispec.Mounts(in)
}

// withFilesOf binds the name files of the container whose network is shared.
func withFilesOf(c *model.Container, e *Engine, id string) *model.Container {
	other, err := e.find(id)
	if err != nil {
		return c
	}
	next := *c
	oc := other.get()
	next.Runtime.HostsPath, next.Runtime.HostnamePath, next.Runtime.ResolvConfPath = oc.Runtime.HostsPath, oc.Runtime.HostnamePath, oc.Runtime.ResolvConfPath
	return &next
}

// passwdLimit bounds what is read of a container's user database.
const passwdLimit = 4 << 20

// userDatabase says where a container's /etc/passwd and /etc/group are read: in its layers, or live in what its process sees.
type userDatabase struct {
	dirs model.OverlayDirs
	pid  int
	live bool
}

// lookupUser finds the numbers behind the container's user in its own /etc/passwd and /etc/group.
func (e *Engine) lookupUser(ctx context.Context, root userDatabase, name string, groupAdd []string) (ocispec.User, error) {
	passwd, err := e.readDatabase(ctx, root, "/etc/passwd")
	if err != nil {
		return ocispec.User{}, err
	}
	group, err := e.readDatabase(ctx, root, "/etc/group")
	if err != nil {
		return ocispec.User{}, err
	}
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		if !strings.Contains(err.Error(), name) { // "unable to find user NAME" is known to scripts as it is
			err = errs.Wrap(err, "user %q", name)
		}
		return ocispec.User{}, errs.As(errs.Invalid, &StartFailure{Code: 126, Err: err})
	}
	if err := checkIDs(name, append([]int{found.Uid, found.Gid}, found.Sgids...)); err != nil {
		return ocispec.User{}, err
	}
	out := ocispec.User{UID: uint32(found.Uid), GID: uint32(found.Gid), Home: found.Home}
	groups := found.Sgids
	if len(groupAdd) > 0 {
		more, err := user.GetAdditionalGroups(groupAdd, bytes.NewReader(group))
		if err != nil {
			return out, errs.As(errs.Invalid, errs.Wrap(err, "--group-add"))
		}
		groups = append(groups, more...)
	}
	seen := map[int]bool{found.Gid: true}
	out.Groups = []uint32{out.GID}
	for _, g := range groups {
		if !seen[g] {
			seen[g] = true
			out.Groups = append(out.Groups, uint32(g))
		}
	}
	return out, nil
}

// checkIDs refuses what is no id, so that the image's passwd file cannot make root out of it: 4294967296 would wrap
// around to 0 (CVE-2024-40635), and a name of digits only is meant as a number (CVE-2026-46680).
func checkIDs(name string, ids []int) error {
	const last = 1<<32 - 2
	for _, id := range ids {
		if id < 0 || id > last {
			return errs.New(errs.Invalid, "user %q: the container's user database gives it the id %d; ids go from 0 to %d", name, id, last)
		}
	}
	for part := range strings.SplitSeq(name, ":") {
		if digits := strings.Trim(part, "0123456789") == "" && part != ""; digits {
			if n, err := strconv.ParseUint(part, 10, 64); err != nil || n > last {
				return errs.New(errs.Invalid, "user %q: ids go from 0 to %d", name, last)
			}
		}
	}
	return nil
}

func (e *Engine) readDatabase(ctx context.Context, from userDatabase, path string) ([]byte, error) {
	read := func() ([]byte, error) { return e.ports.RootFS.ReadFile(ctx, from.dirs, path, passwdLimit) }
	if from.live {
		read = func() ([]byte, error) { return e.readLive(ctx, from.pid, path) }
	}
	data, err := read()
	if errs.Is(err, errs.NotFound) || errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, errs.Wrap(err, "read the container's %s", path)
}

// readLive reads a regular file as a container's process sees it.
func (e *Engine) readLive(ctx context.Context, pid int, path string) ([]byte, error) {
	archive, _, err := e.ports.RootFS.CopyFrom(ctx, RootView{Pid: pid}, path)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	r := tar.NewReader(archive)
	if h, err := r.Next(); err != nil || h.Typeflag != tar.TypeReg {
		return nil, err // a link is nothing that a user database is
	}
	return io.ReadAll(io.LimitReader(r, passwdLimit))
}
