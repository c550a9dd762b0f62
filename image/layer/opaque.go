package layer

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// HideRoots makes good what overlay does not do: it looks for the mark of an opaque directory everywhere but at the root of a
// layer. If dir, unpacked for overlay, has it there, everything that the parents have at their roots is hidden one by one.
func HideRoots(dir string, parents []string) error {
	mark := make([]byte, 4)
	if n, err := unix.Lgetxattr(dir, opaqueXattr, mark); err != nil || string(mark[:max(n, 0)]) != "y" {
		if err == nil || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		return &os.PathError{Op: "read extended attributes of", Path: dir, Err: err}
	}
	for _, p := range parents {
		entries, err := os.ReadDir(p)
		if err != nil {
			return err
		}
		for _, e := range entries {
			own := filepath.Join(dir, e.Name())
			st, err := os.Lstat(own)
			switch {
			case os.IsNotExist(err):
				err = unix.Mknod(own, unix.S_IFCHR, 0)
			case err == nil && st.IsDir():
				err = unix.Lsetxattr(own, opaqueXattr, []byte{'y'}, 0)
			}
			if err != nil {
				return &os.PathError{Op: "hide what lies beneath", Path: own, Err: err}
			}
		}
	}
	return nil
}
