package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/lib/userns"
	"github.com/shoalhq/shoal/model"
)

// overlayAnnotation asks our runtime to mount the root filesystem inside the step's mount namespace, its layers with mapped
// ids (runtime/spec, RootfsAnnotation).
const overlayAnnotation = "dev.shoal.rootfs.overlay"

// overlayDirs are its value.
type overlayDirs struct {
	Lower   []string `json:"lower"`
	Upper   string   `json:"upper,omitempty"`
	Work    string   `json:"work,omitempty"`
	Options []string `json:"options,omitempty"`
}

// remap puts a step that is prepared into a user namespace, where its root is nobody on the host. What it writes is on disk
// as without, so the cache is the same.
func (e *executor) remap(s *step, spec *specs.Spec, j Joined, netMode pb.NetMode, u *undo.Stack) error {
	ids := e.cfg.Confine.IDMaps
	if ids == nil {
		return nil
	}
	if netMode == pb.NetMode_HOST {
		return errs.New(errs.Unsupported, "build step: the host's network cannot be combined with user namespaces (userns-remap)")
	}
	root, err := overlayAt(s.rootfs)
	if err != nil {
		return err
	}
	user := specs.LinuxNamespace{Type: specs.UserNamespace}
	if j.Namespace != nil {
		owner, err := userns.Owner(j.Namespace)
		if err != nil {
			return errs.Wrap(err, "user namespace of a build step")
		}
		u.Add(func() { owner.Close() })
		user.Path = "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(owner.Fd()))
	}
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, user)
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = mappings(ids.UIDs), mappings(ids.GIDs)
	if err := e.remapMounts(s, spec, u); err != nil {
		return err
	}
	dirs := dirsOf(root)
	data, err := json.Marshal(dirs)
	if err != nil {
		return err
	}
	spec.Annotations = map[string]string{overlayAnnotation: string(data)}
	// The same directories must not be mounted twice. What looks at the files afterwards finds them mounted again.
	if err := mount.UnmountAll(s.rootfs, 0); err != nil {
		return err
	}
	u.Add(func() {
		if err := dirs.mount(s.rootfs); err != nil {
			e.cfg.Log.Warn("mount points that a build step left are not removed", "reason", err)
		}
	})
	return nil
}

// remapMounts maps the ids of what is bound into the step. An overlay cannot be bound so: of other stages and images, which
// are only read, the files are there with owners that are nobody.
func (e *executor) remapMounts(s *step, spec *specs.Spec, u *undo.Stack) error {
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		readonly := slices.Contains(m.Options, "ro")
		overlaid := m.Type == "overlay"
		if overlaid && readonly || overlaid && !slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "upperdir=") }) {
			at := filepath.Join(e.dir(s.id), "mount"+strconv.Itoa(i))
			if err := os.Mkdir(at, 0o700); err != nil {
				return err
			}
			if err := mount.All([]mount.Mount{{Type: m.Type, Source: m.Source, Options: m.Options}}, at); err != nil {
				return errs.Wrap(err, "build step: mount %s", m.Destination)
			}
			u.Add(func() { mount.UnmountAll(at, 0) })
			m.Type, m.Source, m.Options = "bind", at, []string{"rbind", "ro"}
			continue
		}
		if overlaid {
			return writableCopy(m.Destination)
		}
		if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			continue
		}
		var st unix.Statfs_t
		switch err := unix.Statfs(m.Source, &st); {
		case err != nil:
			return errs.Wrap(err, "build step: mount %s", m.Destination)
		case st.Type != unix.OVERLAYFS_SUPER_MAGIC:
			m.Options = append(slices.Clone(m.Options), "idmap")
		case !readonly:
			return writableCopy(m.Destination)
		}
	}
	return nil
}

func writableCopy(destination string) error {
	return errs.New(errs.Unsupported, "build step: %s is a writable copy of an image or stage, which cannot be mounted with mapped ids (userns-remap); mount it read-only, or copy it", destination)
}

// overlayAt is the overlay that is mounted at path, by BuildKit or by us.
func overlayAt(path string) (mount.Mount, error) {
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		return mount.Mount{}, err
	}
	if len(found) == 0 || found[len(found)-1].FSType != "overlay" {
		return mount.Mount{}, errs.New(errs.Unsupported, "build step: its root filesystem is no overlay, and only overlays can be mounted with mapped ids (userns-remap)")
	}
	m := mount.Mount{Type: "overlay", Source: "overlay"}
	for o := range strings.SplitSeq(found[len(found)-1].VFSOptions, ",") {
		if o != "rw" && o != "ro" && o != "seclabel" && !strings.HasPrefix(o, "context=") { // what the kernel says, and takes only elsewhere
			m.Options = append(m.Options, o)
		}
	}
	return m, nil
}

// dirsOf reads an overlay's options.
func dirsOf(m mount.Mount) overlayDirs {
	var d overlayDirs
	for _, o := range m.Options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir":
			d.Lower = strings.Split(value, ":")
		case "lowerdir+":
			d.Lower = append(d.Lower, value)
		case "upperdir":
			d.Upper = value
		case "workdir":
			d.Work = value
		default:
			d.Options = append(d.Options, o)
		}
	}
	for i, dir := range d.Lower { // long lists are relative to the directory that all snapshots are in
		if !filepath.IsAbs(dir) {
			d.Lower[i] = filepath.Join(filepath.Dir(filepath.Dir(d.Upper)), dir)
		}
	}
	return d
}

// mount mounts the overlay as the host sees it.
func (d overlayDirs) mount(at string) error {
	o := append(slices.Clone(d.Options), "lowerdir="+strings.Join(d.Lower, ":"))
	if d.Upper != "" {
		o = append(o, "upperdir="+d.Upper, "workdir="+d.Work)
	}
	return mount.All([]mount.Mount{{Type: "overlay", Source: "overlay", Options: o}}, at)
}

func mappings(list []model.IDMap) (out []specs.LinuxIDMapping) {
	for _, m := range list {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.Container, HostID: m.Host, Size: m.Size})
	}
	return out
}
