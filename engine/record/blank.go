package record

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/ids"
)

// blanks is how many empty directories are made ahead of need; so many as blanksKept are kept when containers that end
// leave theirs empty.
const (
	blanks     = 4
	blanksKept = 16
)

// makeBlank makes a directory with an empty writable layer.
func makeBlank(dir string) error {
	if err := os.Mkdir(dir, 0o710); err != nil {
		return err
	}
	err := os.Mkdir(filepath.Join(dir, UpperDir), 0o755)
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, WorkDir), 0o700)
	}
	if err == nil { // the mode of upper is the mode of / in the container; the umask must not decide it
		err = os.Chmod(filepath.Join(dir, UpperDir), 0o755)
	}
	if err != nil {
		os.RemoveAll(dir)
	}
	return err
}

// adopt keeps a blank that an earlier daemon made, when it is whole.
func (s *Store) adopt(dir string) {
	for _, sub := range []string{UpperDir, WorkDir} {
		if st, err := os.Stat(filepath.Join(dir, sub)); err != nil || !st.IsDir() {
			os.RemoveAll(dir)
			return
		}
	}
	if st, err := os.Stat(filepath.Join(dir, UpperDir)); err != nil || st.Mode().Perm() != 0o755 {
		os.RemoveAll(dir)
		return
	}
	select {
	case s.blank <- dir:
	default:
		os.RemoveAll(dir)
	}
}

// refill makes blanks in the background until there are enough.
func (s *Store) refill() {
	if len(s.blank) >= blanks || !s.filling.TryLock() {
		return
	}
	s.work.Go(func() {
		defer s.filling.Unlock()
		for len(s.blank) < blanks {
			dir := filepath.Join(s.dir, blankMark+ids.New())
			if makeBlank(dir) != nil {
				return // the next create says why
			}
			select {
			case s.blank <- dir:
			default:
				os.RemoveAll(dir)
			}
		}
	})
}

// recycle makes a blank of the directory of a container that changed nothing, and says whether it did. Whatever is not
// exactly as makeBlank makes it is left to be removed.
func (s *Store) recycle(dir string) bool {
	if len(s.blank) == cap(s.blank) || !pristine(dir) {
		return false
	}
	blank := filepath.Join(s.dir, blankMark+ids.New())
	if os.Rename(dir, blank) != nil {
		return false
	}
	select {
	case s.blank <- blank:
	default:
		os.RemoveAll(blank)
	}
	return true
}

// pristine says whether a container's directory has an untouched writable layer and nothing else.
func pristine(dir string) bool {
	if !holds(dir, UpperDir, WorkDir) || !holds(filepath.Join(dir, UpperDir)) {
		return false
	}
	upper, work := filepath.Join(dir, UpperDir), filepath.Join(dir, WorkDir)
	var st unix.Stat_t
	if unix.Lstat(upper, &st) != nil || st.Mode != unix.S_IFDIR|0o755 || st.Uid != 0 || st.Gid != 0 {
		return false // the container changed its root directory itself
	}
	if err := Remountable(dir); err != nil {
		return false
	}
	if !holds(work) && (!holds(work, "work") || !holds(filepath.Join(work, "work"))) {
		return false
	}
	if !plain(upper) || !plain(work) {
		return false
	}
	now := time.Now() // the container's / must not tell the time of another's
	return os.Chtimes(upper, now, now) == nil
}

// Remountable takes away the mark by which the kernel refuses to mount a writable layer again that was mounted without
// being written back ("volatile", for containers that are removed at their end): no power cut came in between, for that
// would have ended the container.
func Remountable(dir string) error {
	return os.RemoveAll(filepath.Join(dir, WorkDir, "work", "incompat"))
}

// holds says whether a directory has the named entries, or fewer, and no others.
func holds(dir string, names ...string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(names) {
		return false
	}
	for i, entry := range entries { // sorted by name
		if entry.Name() != names[i] || !entry.IsDir() {
			return false
		}
	}
	return true
}

// plain takes the marks off a directory that overlay put on it; any other attribute is the container's.
func plain(dir string) bool {
	buf := make([]byte, 1024)
	n, err := unix.Llistxattr(dir, buf)
	if err != nil {
		return err == unix.ENOTSUP
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		if !strings.HasPrefix(name, "trusted.overlay.") || unix.Lremovexattr(dir, name) != nil {
			return false
		}
	}
	return true
}
