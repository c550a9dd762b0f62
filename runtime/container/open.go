package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/userns"
	"github.com/shoalhq/shoal/runtime/namespaces"
	"github.com/shoalhq/shoal/runtime/rootfs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// programError marks errors about the container's own program, for ExitCode.
type programError struct{ error }

func (e *programError) Unwrap() error { return e.error }

func asProgramError(err error, p **programError) bool { return errors.As(err, p) }

// openSelf opens this very binary such that nobody who gets hold of it inside a container, by /proc/PID/exe or as an
// interpreter, can write to it: by a detached read-only mount of it, made anew for each start at the cost of two system
// calls; where that is not allowed, by a sealed copy in memory.
func openSelf() (*os.File, error) {
	const self = "/proc/self/exe"
	fd, err := unix.OpenTree(unix.AT_FDCWD, self, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		if err == nil {
			return os.NewFile(uintptr(fd), self), nil
		}
		unix.Close(fd)
	}
	f, err := os.OpenFile(self, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the runtime's own binary: %w", err)
	}
	if protected(f) {
		return f, nil
	}
	defer f.Close()
	return sealedCopy(f)
}

// letGo closes what init was executed from. Whoever closes it last waits for the kernel to unmount it, up to 0.5 ms: that is
// not to hold up the report that the program runs.
func letGo(exe *os.File) { go exe.Close() }

// protected says whether nobody can write to f: it lies on a read-only mount, or is a sealed memory file.
func protected(f *os.File) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return true
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && seals&unix.F_SEAL_WRITE != 0
}

func sealedCopy(from *os.File) (*os.File, error) {
	fd, err := unix.MemfdCreate("shoal-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before 6.3 there was no MFD_EXEC
		fd, err = unix.MemfdCreate("shoal-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make a protected copy of the runtime: %w", err)
	}
	f := os.NewFile(uintptr(fd), "shoal-runtime")
	st, err := from.Stat()
	for left := int64(1); err == nil && left > 0; {
		var n int
		if n, err = unix.Sendfile(fd, int(from.Fd()), nil, int(st.Size())); n <= 0 {
			break
		}
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make a protected copy of the runtime: %w", err)
	}
	return f, nil
}

// openJoins opens the namespaces to join and gives the flags of those to create.
func openJoins(s *specs.Spec) (create uintptr, joins []namespaces.Join, err error) {
	for _, n := range s.Linux.Namespaces {
		flag, _ := namespaces.Flag(n.Type)
		if n.Path == "" {
			create |= flag
			continue
		}
		j, err := namespaces.Open(n.Type, n.Path)
		if err != nil {
			closeJoins(joins)
			return 0, nil, err
		}
		joins = append(joins, j)
	}
	return create, joins, nil
}

func closeJoins(joins []namespaces.Join) {
	for _, j := range joins {
		j.File.Close()
	}
}

func timeOffsets(s *specs.Spec) string {
	var b strings.Builder
	for clock, o := range s.Linux.TimeOffsets {
		fmt.Fprintf(&b, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	return b.String()
}

// mapper writes the id mappings of a child's new user namespace.
func mapper(s *specs.Spec, denySetgroups bool) func(int) error {
	return func(pid int) error {
		if denySetgroups {
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/setgroups", pid), []byte("deny"), 0); err != nil {
				return fmt.Errorf("deny setgroups in the user namespace: %w", err)
			}
		}
		if err := writeMap(pid, "uid_map", "newuidmap", s.Linux.UIDMappings); err != nil {
			return err
		}
		return writeMap(pid, "gid_map", "newgidmap", s.Linux.GIDMappings)
	}
}

func writeMap(pid int, file, helper string, list []specs.LinuxIDMapping) error {
	var text strings.Builder
	args := []string{fmt.Sprint(pid)}
	for _, m := range list {
		fmt.Fprintf(&text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
		args = append(args, fmt.Sprint(m.ContainerID), fmt.Sprint(m.HostID), fmt.Sprint(m.Size))
	}
	err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, file), []byte(text.String()), 0)
	if err == nil {
		return nil
	}
	if os.Geteuid() != 0 && errors.Is(err, unix.EPERM) {
		out, herr := exec.Command(helper, args...).CombinedOutput()
		if herr == nil {
			return nil
		}
		return errs.New(errs.Forbidden, "write the %s of the user namespace: %w; and by %s: %w: %s", file, err, helper, herr, strings.TrimSpace(string(out)))
	}
	return fmt.Errorf("write the %s of the user namespace (%s): %w", file, strings.ReplaceAll(strings.TrimSpace(text.String()), "\n", ", "), err)
}

// denySetgroups says whether an unprivileged user's namespace must give up setgroups(2) to be mapped.
func denySetgroups(s *specs.Spec) bool {
	if os.Geteuid() == 0 || !spec.IsNew(s, specs.UserNamespace) {
		return false
	}
	if l := s.Linux.GIDMappings; len(l) == 1 && l[0].Size == 1 {
		return true
	}
	_, err := exec.LookPath("newgidmap")
	return err != nil
}

// sources are the bind mounts' trees that the runtime opens itself, with the host's rights and in the host's mount
// namespace: for containers in a user namespace, which may not reach them; for mounts that stay peers of the host's;
// and for those with mapped ids.
type sources struct {
	mounts []rootfs.Mount
	files  []*os.File
	root   *rootMount // nil when init mounts the root
}

func (s *sources) close() {
	for _, f := range s.files {
		f.Close()
	}
}

func (s *sources) fds() []int {
	var list []int
	for _, f := range s.files {
		list = append(list, int(f.Fd()))
	}
	return list
}

func openSources(cfg *specs.Spec, userNS bool) (*sources, error) {
	s := &sources{}
	for i := range cfg.Mounts {
		m := rootfs.Mount{Mount: cfg.Mounts[i]}
		t := rootfs.BindOf(m.Type, m.Options)
		mapped := t.IDMap != "" || len(m.UIDMappings) > 0
		if mapped && !t.Bind {
			s.close()
			return nil, errs.New(errs.Unsupported, "mount on %s: id mappings are for bind mounts only", m.Destination)
		}
		if t.Bind && (mapped || userNS && os.Geteuid() == 0) {
			f, err := openSource(cfg, &m, t, mapped)
			if err != nil {
				s.close()
				return nil, err
			}
			s.files = append(s.files, f)
			m.Tree = int(f.Fd())
		}
		s.mounts = append(s.mounts, m)
	}
	return s, nil
}

func openSource(cfg *specs.Spec, m *rootfs.Mount, t rootfs.BindTree, mapped bool) (*os.File, error) {
	fd, err := rootfs.OpenSource(m.Source, m.Options)
	if err != nil {
		return nil, errs.Wrap(err, "mount %s on %s", m.Source, m.Destination)
	}
	f := os.NewFile(uintptr(fd), m.Source)
	if !t.Shared {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_SLAVE})
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("mount %s on %s: cut it off from the host's: %w", m.Source, m.Destination, err)
		}
	}
	if !mapped {
		return f, nil
	}
	uids, gids := m.UIDMappings, m.GIDMappings
	if len(uids) == 0 {
		uids, gids = cfg.Linux.UIDMappings, cfg.Linux.GIDMappings
	}
	if err := idmapTree(fd, uids, gids, t.IDMap == "ridmap"); err != nil {
		f.Close()
		return nil, errs.Wrap(err, "mount %s on %s: map its ids", m.Source, m.Destination)
	}
	return f, nil
}

func idmapTree(fd int, uids, gids []specs.LinuxIDMapping, recursive bool) error {
	ns, err := mappedNamespace(uids, gids)
	if err != nil {
		return err
	}
	defer ns.Close()
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err == unix.EINVAL {
		return errs.New(errs.Unsupported, "the file system of the source cannot be mounted with mapped ids on this kernel: %w", err)
	}
	return err
}

// mappedNamespace makes a user namespace that exists only to hold mappings.
func mappedNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	if len(uids) == 0 || len(gids) == 0 {
		return nil, errs.New(errs.Invalid, "there are no id mappings, neither of the mount nor of the container")
	}
	convert := func(list []specs.LinuxIDMapping) []syscall.SysProcIDMap {
		var out []syscall.SysProcIDMap
		for _, m := range list {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
		}
		return out
	}
	files, err := userns.New(convert(uids), convert(gids), 0, "user")
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// rootMount is a container's overlay while it is being mounted. It takes the kernel 1 to 3 ms (the work directory is made anew
// and tried), in which the cgroups and the child are made. A container with mapped ids needs it made here anyway: its init may
// not, because the layers belong to the host's users.
type rootMount struct {
	done chan struct{} // closed when fd or err is there
	fd   int
	err  error
}

// mountRoot begins to mount the overlay; nil when there is none, or when init is to make it with what it has.
func mountRoot(s *specs.Spec) (*rootMount, error) {
	overlay, err := spec.Overlay(s)
	mapped := len(s.Linux.UIDMappings) > 0
	if err != nil || overlay == nil || os.Geteuid() != 0 || !mapped && spec.Namespace(s, specs.UserNamespace) != nil {
		return nil, err
	}
	m := &rootMount{done: make(chan struct{}), fd: -1}
	go func() {
		defer close(m.done)
		if mapped {
			m.fd, m.err = mountMapped(s, overlay)
		} else {
			m.fd, m.err = rootfs.MountOverlay(overlay, s.Linux.MountLabel)
		}
	}()
	return m, nil
}

// tree waits for the mount.
func (m *rootMount) tree() (int, error) {
	<-m.done
	return m.fd, m.err
}

// close gives up this process's hold of the mount.
func (m *rootMount) close() {
	if m == nil {
		return
	}
	if fd, err := m.tree(); err == nil {
		unix.Close(fd)
	}
}

func mountMapped(s *specs.Spec, overlay *spec.RootfsOverlay) (int, error) {
	ns, err := mappedNamespace(s.Linux.UIDMappings, s.Linux.GIDMappings)
	if err != nil {
		return -1, err
	}
	defer ns.Close()
	fd, err := rootfs.MountMapped(overlay, s.Linux.MountLabel, ns, hostID(s.Linux.UIDMappings, 0), hostID(s.Linux.GIDMappings, 0))
	return fd, errs.Wrap(err, "root file system with mapped ids")
}

// absRoot gives root.path its meaning: relative to the bundle.
func absRoot(bundle, root string) string {
	if filepath.IsAbs(root) {
		return filepath.Clean(root)
	}
	return filepath.Join(bundle, root)
}

// giveStreams makes the container's user the owner of the pipes that are its standard streams, so that it can open
// /dev/stdout: in a user namespace the init may not.
func giveStreams(stdio [3]*os.File, s *specs.Spec) {
	uid := hostID(s.Linux.UIDMappings, s.Process.User.UID)
	for _, f := range stdio {
		var st unix.Stat_t
		if f != nil && uid >= 0 && unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			unix.Fchown(int(f.Fd()), uid, -1)
		}
	}
}

// hostID is the host's id of a container's, -1 where there is none.
func hostID(list []specs.LinuxIDMapping, id uint32) int {
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID)
		}
	}
	return -1
}
