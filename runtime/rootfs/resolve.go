package rootfs

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
)

// openIn resolves a path of the container inside root, following the container's own symbolic links, never a magic
// link of procfs.
func openIn(root int, name string, flags uint64, extra uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | extra}
	return openat.Open(root, name, &how)
}

// maxLinks is how many dangling links are followed while directories are made, as many as the kernel follows.
const maxLinks = 40

// makeDir resolves a directory inside root and makes what is missing; a dangling link's target is made inside root.
func makeDir(root int, name string, mode uint32) (int, error) {
	return makeDirLinks(root, name, mode, maxLinks)
}

func makeDirLinks(root int, name string, mode uint32, links int) (int, error) {
	fd, err := openIn(root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || err != unix.ENOENT {
		return fd, pathErr(name, err)
	}
	parts := strings.Split(strings.Trim(name, "/"), "/")
	parent, err := openIn(root, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, pathErr("/", err)
	}
	done := ""
	for i, part := range parts {
		if part == "" || part == "." {
			continue
		}
		next := done + "/" + part
		fd, err := openIn(root, next, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == unix.ENOENT {
			err = unix.Mkdirat(parent, part, mode)
			if err == unix.EEXIST {
				target, lerr := readlinkAt(parent, part)
				unix.Close(parent)
				if lerr != nil || links == 0 {
					return -1, errs.New(errs.Invalid, "%s is not a directory and cannot be made one", next)
				}
				if !strings.HasPrefix(target, "/") {
					target = done + "/" + target
				}
				return makeDirLinks(root, target+"/"+strings.Join(parts[i+1:], "/"), mode, links-1)
			}
			if err == nil {
				fd, err = openIn(root, next, unix.O_PATH|unix.O_DIRECTORY, 0)
			}
		}
		if err != nil {
			unix.Close(parent)
			return -1, pathErr(next, err)
		}
		unix.Close(parent)
		parent, done = fd, next
	}
	return parent, nil
}

func readlinkAt(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// makeFile resolves a file inside root as a place to mount on, making it, empty, when it is missing.
func makeFile(root int, name string) (int, error) {
	for range maxLinks {
		fd, err := openIn(root, name, unix.O_PATH, 0)
		if err == nil || err != unix.ENOENT {
			return fd, pathErr(name, err)
		}
		dirName, base := path.Split(strings.TrimRight(name, "/"))
		dir, err := makeDir(root, dirName, 0o755)
		if err != nil {
			return -1, err
		}
		made, err := unix.Openat(dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o644)
		if err == unix.EEXIST {
			target, lerr := readlinkAt(dir, base)
			unix.Close(dir)
			if lerr != nil {
				continue // it appeared meanwhile
			}
			if !strings.HasPrefix(target, "/") {
				target = dirName + "/" + target
			}
			name = target
			continue
		}
		unix.Close(dir)
		if err != nil {
			return -1, pathErr(name, err)
		}
		unix.Close(made)
	}
	return -1, errs.New(errs.Invalid, "%s: too many symbolic links", name)
}

func pathErr(name string, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	switch err {
	case unix.ENOTDIR:
		hint = "; a directory can only be mounted on a directory and a file on a file"
	case unix.EROFS:
		hint = "; the place to mount on does not exist and cannot be made on a read-only file system"
	case unix.ELOOP:
		hint = "; symbolic links in the container lead in a circle or where they must not"
	}
	return fmt.Errorf("%s in the container: %w%s", name, err, hint)
}
