package build

import (
	"io"

	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat"
)

// maxUserFile bounds how much of /etc/passwd and /etc/group is read.
const maxUserFile = 4 << 20

// userOf finds a user by the root filesystem's own /etc/passwd and /etc/group. BuildKit's oci.GetUser opens whatever an image or
// a step before has put there: a pipe, which would hold up the build for ever, or a device, whose opening does things.
func userOf(rootfs, name string) (specs.User, error) {
	if uid, gid, err := oci.ParseUIDGID(name); err == nil && name != "" {
		return specs.User{UID: uid, GID: gid}, nil
	}
	wanted := name
	if wanted == "" {
		wanted = "0"
	}
	passwd, group := userFile(rootfs, "etc/passwd"), userFile(rootfs, "etc/group")
	for _, f := range []io.Reader{passwd, group} {
		if c, ok := f.(io.Closer); ok {
			defer c.Close()
		}
	}
	found, err := user.GetExecUser(wanted, nil, passwd, group)
	if err != nil && name == "" {
		return specs.User{}, nil
	}
	if err != nil {
		return specs.User{}, err
	}
	u := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	for _, g := range found.Sgids {
		u.AdditionalGids = append(u.AdditionalGids, uint32(g))
	}
	return u, nil
}

// limited is a file of which only so much is read.
type limited struct {
	io.Reader
	io.Closer
}

// userFile opens a file of users; nil when the root filesystem has no regular file there.
func userFile(rootfs, name string) io.Reader {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root)
	f, err := openat.RegularIn(root, name, 0)
	if err != nil {
		return nil
	}
	return limited{io.LimitReader(f, maxUserFile), f}
}
