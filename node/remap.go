package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/userns"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/runtime/rootfs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// remapUser is whose ranges --userns-remap=default takes, as with dockerd.
const remapUser = "dockremap"

// remap reads --userns-remap (default, USER[:GROUP], UID[:GID], or of our own FIRST+COUNT, a range itself) and finds out whether this machine can do it: nil is off.
func remap(cfg *config.Config) (*model.IDMaps, error) {
	value := cfg.Container.Defaults.UsernsRemap
	if value == "" {
		return nil, nil
	}
	if first, count, is := strings.Cut(value, "+"); is {
		list, err := addRange(nil, 0, first, count)
		if err != nil {
			return nil, errs.Wrap(err, "userns-remap=%s", value)
		}
		m := model.IDMaps{UIDs: list, GIDs: list}
		return &m, errs.Wrap(tryRemap(cfg.Daemon.DataRoot, &m), "userns-remap=%s", value)
	}
	name, group, has := strings.Cut(value, ":")
	if value == "default" {
		name = remapUser
	}
	if !has {
		group = name
	}
	var m model.IDMaps
	var err error
	if m.UIDs, err = subordinate("/etc/subuid", userAlias(name)); err == nil {
		m.GIDs, err = subordinate("/etc/subgid", groupAlias(group))
	}
	if err == nil {
		err = tryRemap(cfg.Daemon.DataRoot, &m)
	}
	return &m, errs.Wrap(err, "userns-remap=%s", value)
}

// userAlias gives both the name and the number of a user: the files may have either.
func userAlias(name string) []string {
	if uid, err := strconv.Atoi(name); err == nil {
		if u, err := user.LookupUid(uid); err == nil {
			return []string{name, u.Name}
		}
	} else if u, err := user.LookupUser(name); err == nil {
		return []string{name, strconv.Itoa(u.Uid)}
	}
	return []string{name}
}

func groupAlias(name string) []string {
	if gid, err := strconv.Atoi(name); err == nil {
		if g, err := user.LookupGid(gid); err == nil {
			return []string{name, g.Name}
		}
	} else if g, err := user.LookupGroup(name); err == nil {
		return []string{name, strconv.Itoa(g.Gid)}
	}
	return []string{name}
}

// leastIDs is how many ids a container should have: nobody is 65534.
const leastIDs = 65536

// subordinate reads the ranges of ids that somebody may use; containers' ids from 0 on are taken from them in order.
func subordinate(file string, names []string) ([]model.IDMap, error) {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var out []model.IDMap
	next := uint64(0)
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != names[0] && f[0] != names[len(names)-1] {
			continue
		}
		if out, err = addRange(out, next, f[1], f[2]); err != nil {
			return nil, errs.Wrap(err, "%s: line %q", file, strings.TrimSpace(line))
		}
		next += uint64(out[len(out)-1].Size)
	}
	if next < leastIDs {
		return nil, errs.New(errs.NotFound, "%s gives %s %d ids, at least %d are needed; add a range that nobody else has, such as: echo %s:231072:65536 >> %s",
			file, names[0], next, leastIDs, names[0], file)
	}
	return out, nil
}

// addRange gives the container's ids from next on to a range of the host's.
func addRange(list []model.IDMap, next uint64, firstID, number string) ([]model.IDMap, error) {
	first, err1 := strconv.ParseUint(firstID, 10, 32)
	count, err2 := strconv.ParseUint(number, 10, 32)
	switch {
	case err1 != nil || err2 != nil || count == 0 || first+count > 1<<32-1 || next+count > 1<<32-1:
		return nil, errs.New(errs.Invalid, "%s and %s are no first id and number of ids", firstID, number)
	case first == 0:
		return nil, errs.New(errs.Invalid, "a range that begins with 0 would make containers' root the host's")
	}
	return append(list, model.IDMap{Container: uint32(next), Host: uint32(first), Size: uint32(count)}), nil
}

// tryRemap makes what every start of a container will make, once: an overlay of layers with mapped ids.
func tryRemap(root string, m *model.IDMaps) error {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(root, "remap-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := spec.RootfsOverlay{Lower: []string{filepath.Join(dir, "lower")}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for _, d := range []string{o.Lower[0], o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	convert := func(list []model.IDMap) (out []syscall.SysProcIDMap) {
		for _, m := range list {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Container), HostID: int(m.Host), Size: int(m.Size)})
		}
		return out
	}
	files, err := userns.New(convert(m.UIDs), convert(m.GIDs), 0, "user")
	if err != nil {
		return err
	}
	defer files[0].Close()
	uid, gid := m.Root()
	fd, err := rootfs.MountMapped(&o, "", files[0], uid, gid)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
