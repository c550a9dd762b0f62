package rootfs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/model"
)

// mountOptions is a mount's option list, sorted by what has to be done with each.
type mountOptions struct {
	set, clear       uint64 // attributes of this mount
	recSet, recClear uint64 // attributes of the whole tree (the options that begin with r: "rro", "rnosuid", ...)
	bind, recursive  bool
	remount, copyUp  bool
	idmap            string // "", "idmap", "ridmap"
	subpath          string // model.MountSubpathOption
	propagation      []propagation
	data             []string // for the file system itself, "key" or "key=value"
}

type propagation struct {
	flag      uint64
	recursive bool
}

const attrAtime = unix.MOUNT_ATTR__ATIME

var attrOptions = map[string]struct{ set, clear uint64 }{
	"ro": {unix.MOUNT_ATTR_RDONLY, 0}, "rw": {0, unix.MOUNT_ATTR_RDONLY},
	"nosuid": {unix.MOUNT_ATTR_NOSUID, 0}, "suid": {0, unix.MOUNT_ATTR_NOSUID},
	"nodev": {unix.MOUNT_ATTR_NODEV, 0}, "dev": {0, unix.MOUNT_ATTR_NODEV},
	"noexec": {unix.MOUNT_ATTR_NOEXEC, 0}, "exec": {0, unix.MOUNT_ATTR_NOEXEC},
	"nodiratime": {unix.MOUNT_ATTR_NODIRATIME, 0}, "diratime": {0, unix.MOUNT_ATTR_NODIRATIME},
	"relatime": {unix.MOUNT_ATTR_RELATIME, attrAtime}, "norelatime": {0, attrAtime},
	"noatime": {unix.MOUNT_ATTR_NOATIME, attrAtime}, "atime": {0, attrAtime},
	"strictatime": {unix.MOUNT_ATTR_STRICTATIME, attrAtime}, "nostrictatime": {0, attrAtime},
	"nosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, 0}, "symfollow": {0, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

// superOptions are words that mount(2) takes as flags of the superblock; fsconfig takes them by name.
var superOptions = map[string]string{
	"sync": "sync", "dirsync": "dirsync", "mand": "mand", "lazytime": "lazytime",
	"async": "", "nomand": "", "nolazytime": "", "loud": "", "silent": "", "iversion": "", "noiversion": "", "acl": "", "noacl": "",
}

func propagationFlag(word string) (uint64, bool, bool) {
	switch word {
	case "private", "rprivate":
		return unix.MS_PRIVATE, word[0] == 'r', true
	case "shared", "rshared":
		return unix.MS_SHARED, word[0] == 'r', true
	case "slave", "rslave":
		return unix.MS_SLAVE, word[0] == 'r', true
	case "unbindable", "runbindable":
		return unix.MS_UNBINDABLE, word[0] == 'r', true
	}
	return 0, false, false
}

func parseOptions(list []string) mountOptions {
	var o mountOptions
	for _, word := range list {
		if a, ok := attrOptions[word]; ok {
			o.set, o.clear = o.set&^a.clear|a.set, o.clear&^a.set|a.clear
			continue
		}
		if a, ok := attrOptions[strings.TrimPrefix(word, "r")]; ok && word[0] == 'r' {
			o.recSet, o.recClear = o.recSet&^a.clear|a.set, o.recClear&^a.set|a.clear
			continue
		}
		if flag, rec, ok := propagationFlag(word); ok {
			o.propagation = append(o.propagation, propagation{flag, rec})
			continue
		}
		if name, ok := superOptions[word]; ok {
			if name != "" {
				o.data = append(o.data, name)
			}
			continue
		}
		switch word {
		case "defaults", "":
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.recursive = true, true
		case "remount":
			o.remount = true
		case "tmpcopyup":
			o.copyUp = true
		case "idmap", "ridmap":
			o.idmap = word
		default:
			if sub, ok := strings.CutPrefix(word, model.MountSubpathOption); ok {
				o.subpath = sub
				continue
			}
			o.data = append(o.data, word)
		}
	}
	return o
}

// BindTree is what a caller with more rights than init does for a bind mount's source.
type BindTree struct {
	Bind, Recursive bool
	IDMap           string // "idmap", "ridmap" or ""
	Shared          bool   // the mount asks to stay a peer of the source
}

// BindOf says whether a mount binds a path of the host, and how.
func BindOf(typ string, options []string) BindTree {
	o := parseOptions(options)
	t := BindTree{Bind: (o.bind || typ == "bind") && !o.remount, Recursive: o.recursive, IDMap: o.idmap}
	for _, p := range o.propagation {
		t.Shared = t.Shared || p.flag == unix.MS_SHARED
	}
	return t
}

// OptionNames lists all mount options this package acts on, for the features document.
func OptionNames() []string {
	names := []string{"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap", "defaults"}
	for name := range attrOptions {
		names = append(names, name, "r"+name)
	}
	for name := range superOptions {
		names = append(names, name)
	}
	for _, name := range []string{"private", "shared", "slave", "unbindable"} {
		names = append(names, name, "r"+name)
	}
	return names
}

func setAttr(fd int, set, clear uint64, recursive bool) error {
	if set|clear == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: set, Attr_clr: clear})
	if err == unix.EPERM && clear != 0 {
		return fmt.Errorf("set mount attributes: %w; an attribute that the host locked (read-only, nosuid, nodev, noexec, atime) cannot be taken off inside a user namespace", err)
	}
	if err != nil {
		return fmt.Errorf("set mount attributes: %w%s", err, kernelHint(err))
	}
	return nil
}

func setPropagation(fd int, flag uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(fd, "", flags, &unix.MountAttr{Propagation: flag}); err != nil {
		return fmt.Errorf("set mount propagation: %w%s", err, kernelHint(err))
	}
	return nil
}
