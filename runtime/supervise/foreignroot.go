package supervise

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/osthread"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/rootfs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// A foreign runtime wants the root filesystem to be a directory that it sees. It is mounted in a mount namespace that
// only the runtime's commands are run in; the host's table never has it, and it goes with the last process that uses it.

// prepare turns config.json into what any OCI runtime understands: our annotation becomes a mounted root, subpaths of
// mounts become directories of their own, and the network namespace that this process inherited gets a path.
func (f *foreign) prepare(o *CreateOptions) error {
	path := filepath.Join(o.Dir, spec.ConfigFile)
	var cfg specs.Spec
	if err := readJSON(path, &cfg); err != nil {
		return err
	}
	var overlay *spec.RootfsOverlay
	if text, ok := cfg.Annotations[spec.RootfsAnnotation]; ok {
		overlay = new(spec.RootfsOverlay)
		if err := json.Unmarshal([]byte(text), overlay); err != nil {
			return errs.New(errs.Invalid, "decode annotation %s: %w", spec.RootfsAnnotation, err)
		}
		delete(cfg.Annotations, spec.RootfsAnnotation)
	}
	if o.Config != nil && o.Config.Netns && cfg.Linux != nil {
		for i := range cfg.Linux.Namespaces {
			if n := &cfg.Linux.Namespaces[i]; n.Path == spec.NetnsPath {
				n.Path = strings.Replace(spec.NetnsPath, "self", strconv.Itoa(os.Getpid()), 1)
			}
		}
	}
	if overlay != nil || hasSubpaths(cfg.Mounts) {
		if err := f.makeView(o.Dir, &cfg, overlay); err != nil {
			return err
		}
	}
	lower(&cfg)
	data, err := json.Marshal(&cfg)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// configVersion is what foreign runtimes are told: some (crun before 1.9) refuse any number but 1.0, and those that know
// more use it anyway.
const configVersion = "1.0.2"

// lower says in the words of version 1.0 what later versions have a word of their own for.
func lower(cfg *specs.Spec) {
	cfg.Version = configVersion
	if cfg.Domainname != "" && cfg.Linux != nil {
		if cfg.Linux.Sysctl == nil {
			cfg.Linux.Sysctl = map[string]string{}
		}
		cfg.Linux.Sysctl["kernel.domainname"] = cfg.Domainname
		cfg.Domainname = ""
	}
}

func hasSubpaths(mounts []specs.Mount) bool {
	for i := range mounts {
		if _, ok := rootfs.SubpathOf(mounts[i].Options); ok {
			return true
		}
	}
	return false
}

// makeView makes the mount namespace and what is mounted in it.
func (f *foreign) makeView(dir string, cfg *specs.Spec, overlay *spec.RootfsOverlay) error {
	return inThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return errs.Wrap(err, "make a mount namespace for the runtime")
		}
		// Only the mount that ours go on is cut off from the host's: all others stay peers, so that shared and slave
		// binds do what they say, and unmounting on the host is not held up by a container.
		around, err := mountOf(cfg.Root.Path)
		if err != nil {
			return errs.Wrap(err, "find the mount of %s", cfg.Root.Path)
		}
		if err := unix.Mount("", around, "", unix.MS_PRIVATE, ""); err != nil {
			return errs.Wrap(err, "cut %s off from the host's mounts", around)
		}
		if overlay != nil {
			label := ""
			if cfg.Linux != nil {
				label = cfg.Linux.MountLabel
			}
			if err := rootfs.AttachOverlay(overlay, label, cfg.Root.Path); err != nil {
				return err
			}
		}
		for i := range cfg.Mounts {
			if err := f.mountSubpath(dir, i, &cfg.Mounts[i]); err != nil {
				return errs.Wrap(err, "mount on %s", cfg.Mounts[i].Destination)
			}
		}
		f.view, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid()))
		return err
	})
}

// mountSubpath mounts the part of a volume or image that the container shall see, and names that as the source.
func (f *foreign) mountSubpath(dir string, number int, m *specs.Mount) error {
	sub, ok := rootfs.SubpathOf(m.Options)
	if !ok {
		return nil
	}
	place := filepath.Join(dir, "mount-"+strconv.Itoa(number))
	if err := rootfs.AttachSubpath(m, sub, place); err != nil {
		return err
	}
	var opts []string
	for _, o := range m.Options {
		if m.Type == "bind" && !strings.HasPrefix(o, model.MountSubpathOption) {
			opts = append(opts, o)
		}
	}
	if m.Type != "bind" {
		opts = []string{"rbind", "ro", "rprivate"}
	}
	m.Type, m.Source, m.Options = "bind", place, opts
	return nil
}

// mountOf finds the root of the mount that a path is on.
func mountOf(path string) (string, error) {
	id := func(path string) (uint64, error) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st)
		return st.Mnt_id, err
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	here, err := id(path)
	for err == nil && path != "/" {
		parent := filepath.Dir(path)
		above, perr := id(parent)
		if perr != nil || above != here {
			return path, perr
		}
		path = parent
	}
	return path, err
}

// inView runs do where the container's root can be seen. What do starts stays there; nothing else of this process does.
func (f *foreign) inView(do func() error) error {
	if f.view == nil {
		return do()
	}
	return inThread(func() error {
		if err := unix.Setns(int(f.view.Fd()), unix.CLONE_NEWNS); err != nil {
			return errs.Wrap(err, "enter the runtime's mount namespace")
		}
		return do()
	})
}

// inThread runs do in a thread that has its own idea of the file system and ends afterwards.
func inThread(do func() error) (err error) {
	osthread.Run(func() {
		if err = unix.Unshare(unix.CLONE_FS); err == nil {
			err = do()
		}
	})
	return err
}
