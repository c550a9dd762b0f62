package volume

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// checkOptions refuses options that could never work.
func checkOptions(options map[string]string) error {
	for name, value := range options {
		switch name {
		case "type", "device", "o":
		case "size", "uid", "gid", "mode":
			if options["type"]+options["device"]+options["o"] != "" {
				return errs.New(errs.Invalid, "option %s=%s is for directories on this node's disk; for type=tmpfs use o=%[1]s=%[2]s", name, value)
			}
			if !validPlain(name, value) {
				return errs.New(errs.Invalid, "option %s=%s: want size=500m, uid=1000, gid=1000 or mode=0770", name, value)
			}
		default:
			return errs.New(errs.Invalid, "invalid option: %q; the local driver knows type, device, o, or else size, uid, gid and mode", name)
		}
	}
	if plain(model.Volume{Options: options}) {
		return nil
	}
	if options["device"] == "" {
		return errs.New(errs.Invalid, "missing required option: \"device\"; for type=tmpfs use device=tmpfs")
	}
	if options["type"] == "" && !isBind(options) {
		return errs.New(errs.Invalid, "missing required option: \"type\"; for a directory of this machine use type=none and o=bind")
	}
	if isBind(options) && !filepath.IsAbs(options["device"]) {
		return errs.New(errs.Invalid, "device=%s: a bind wants an absolute path", options["device"])
	}
	return nil
}

// validPlain checks an option of a volume that is a directory of ours.
func validPlain(name, value string) bool {
	switch name {
	case "size":
		n, err := units.RAMInBytes(value)
		return err == nil && n > 0
	case "mode":
		_, err := strconv.ParseUint(value, 8, 12)
		return err == nil
	}
	n, err := strconv.ParseUint(value, 10, 32)
	return err == nil && n < 1<<32-1
}

// own gives a volume's directory the owner and mode that its options name; the others stay.
func own(dir string, options map[string]string) error {
	id := func(name string) int {
		n, err := strconv.ParseUint(options[name], 10, 32)
		if err != nil {
			return -1 // not named: stays
		}
		return int(n)
	}
	if err := os.Lchown(dir, id("uid"), id("gid")); err != nil {
		return err
	}
	if mode, err := strconv.ParseUint(options["mode"], 8, 12); err == nil {
		return unix.Chmod(dir, uint32(mode))
	}
	return nil
}

func isBind(options map[string]string) bool {
	for o := range strings.SplitSeq(options["o"], ",") {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return options["type"] == "bind"
}

// needsMount says whether the volume is another filesystem, shared by its containers, and so must be mounted once on the
// host; binds go straight into the container.
func needsMount(vol model.Volume) bool {
	return !foreign(vol) && !plain(vol) && !isBind(vol.Options)
}

// Mount makes the volume ready for a container that is about to start and says how the runtime gets it. A volume that
// is another filesystem is mounted on the host when its first container starts, in the mount namespace of the daemon;
// every container then binds it, so that all see the same. Mount again for the same container changes nothing.
func (v *Volumes) Mount(ctx context.Context, name, container string) (model.VolumeMount, error) {
	unlock, err := v.lock(ctx, name)
	if err != nil {
		return model.VolumeMount{}, err
	}
	defer unlock()
	v.mu.Lock()
	e, err := v.entry(name)
	v.mu.Unlock()
	if err != nil {
		return model.VolumeMount{}, err
	}
	vol := e.volume
	m := model.VolumeMount{Type: "bind", Source: vol.Mountpoint, Options: []string{"rbind"}}
	switch {
	case foreign(vol):
		m.Source, err = v.mountForeign(ctx, e, vol, container)
		return m, errs.Wrap(err, "mount volume %s", name)
	case isBind(vol.Options):
		m.Source = vol.Options["device"]
		if _, err := os.Stat(m.Source); err != nil {
			return m, errs.New(errs.Invalid, "volume %s: its device %s cannot be used: %w", name, m.Source, err)
		}
		for o := range strings.SplitSeq(vol.Options["o"], ",") {
			if o != "" && o != "bind" && o != "rbind" {
				m.Options = append(m.Options, o)
			}
		}
	case needsMount(vol):
		if err := v.mountOnce(ctx, e, vol); err != nil {
			return m, errs.Wrap(err, "mount volume %s", name)
		}
	}
	v.mu.Lock()
	e.mounted[container] = true
	v.mu.Unlock()
	return m, nil
}

// Unmount says that the container has stopped. The last one takes the mount with it.
func (v *Volumes) Unmount(ctx context.Context, name, container string) error {
	unlock, err := v.lock(ctx, name)
	if err != nil {
		return err
	}
	free := true
	defer func() {
		if free {
			unlock()
		}
	}()
	v.mu.Lock()
	e, err := v.entry(name)
	if err != nil {
		v.mu.Unlock()
		return err
	}
	was, vol := e.mounted[container] || e.stale[container], e.volume
	delete(e.mounted, container)
	rest := len(e.mounted)
	v.mu.Unlock()
	if foreign(vol) {
		if was {
			free = false // in the background: an end is not held up by a plug-in that hangs, but the next mount waits for it
			v.background.Go(func() {
				defer unlock()
				v.giveBack(context.Background(), e, vol, container)
			})
		}
		return nil
	}
	if rest > 0 || !needsMount(vol) {
		return nil
	}
	if mounted, err := mountinfo.Mounted(vol.Mountpoint); err != nil || !mounted { // perhaps from before the daemon was started
		return errs.Wrap(err, "unmount volume %s", name)
	}
	return errs.Wrap(unix.Unmount(vol.Mountpoint, unix.MNT_DETACH), "unmount volume %s", name)
}

// flagOf are the options that the kernel takes as flags; false takes the flag away.
var flagOf = map[string]struct {
	flag uintptr
	set  bool
}{
	"ro": {unix.MS_RDONLY, true}, "rw": {unix.MS_RDONLY, false}, "nosuid": {unix.MS_NOSUID, true}, "suid": {unix.MS_NOSUID, false},
	"nodev": {unix.MS_NODEV, true}, "dev": {unix.MS_NODEV, false}, "noexec": {unix.MS_NOEXEC, true}, "exec": {unix.MS_NOEXEC, false},
	"sync": {unix.MS_SYNCHRONOUS, true}, "async": {unix.MS_SYNCHRONOUS, false}, "noatime": {unix.MS_NOATIME, true}, "atime": {unix.MS_NOATIME, false},
	"nodiratime": {unix.MS_NODIRATIME, true}, "diratime": {unix.MS_NODIRATIME, false}, "relatime": {unix.MS_RELATIME, true},
	"norelatime": {unix.MS_RELATIME, false}, "strictatime": {unix.MS_STRICTATIME, true}, "dirsync": {unix.MS_DIRSYNC, true},
	"mand": {unix.MS_MANDLOCK, true}, "nomand": {unix.MS_MANDLOCK, false}, "defaults": {0, true},
}

// options splits the option o into flags and what the filesystem itself reads.
func options(kind, text string) (flags uintptr, data string, err error) {
	var rest []string
	for o := range strings.SplitSeq(text, ",") {
		if o == "" {
			continue
		}
		f, known := flagOf[o]
		switch {
		case !known:
			rest = append(rest, o)
		case f.set:
			flags |= f.flag
		default:
			flags &^= f.flag
		}
	}
	if kind == "none" {
		return 0, "", errs.New(errs.Invalid, "type=none makes sense with o=bind only")
	}
	return flags, strings.Join(rest, ","), nil
}

// mountsBelow lists what is mounted on or under dir.
func mountsBelow(dir string) ([]string, error) {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	var out []string
	for _, m := range list {
		out = append(out, m.Mountpoint)
	}
	return out, err
}
