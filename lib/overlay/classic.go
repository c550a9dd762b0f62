package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Classic says whether this kernel makes overlays of any number of layers by mount(2) only: before Linux 6.8 a file
// system context takes lower directories in one text of at most 255 characters, which is four layers.
var Classic = sync.OnceValue(func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	return before(unix.ByteSliceToString(u.Release[:]), 6, 8)
})

// before says whether a release such as "6.1.0-56-cloud-amd64" is older than major.minor.
func before(release string, major, minor int) bool {
	var have [2]int
	for i, part := range strings.SplitN(release, ".", 3) {
		if i < 2 {
			end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
			if end < 0 {
				end = len(part)
			}
			have[i], _ = strconv.Atoi(part[:end])
		}
	}
	return have[0] < major || have[0] == major && have[1] < minor
}

// MountClassic makes the overlay by mount(2) on a thread with a mount namespace of its own, where names can be relative to
// the directory that the layers share (a page of options then holds hundreds of them) and nobody sees the mount.
func MountClassic(d Dirs) (*os.File, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fd, err := classic(d)
			done <- result{fd, err}
			return // still locked: the thread ends with the goroutine, and with it the namespace
		}
		// The process's first thread would not end, and would stay in the namespace: it is held back, so that another takes this.
		other := make(chan struct{})
		go func() {
			defer close(other)
			runtime.LockOSThread()
			fd, err := classic(d)
			done <- result{fd, err}
		}()
		<-other
		runtime.UnlockOSThread()
	}()
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	return os.NewFile(uintptr(r.fd), "overlay"), nil
}

func classic(d Dirs) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, os.NewSyscallError("unshare the mount namespace", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, os.NewSyscallError("make mounts private", err)
	}
	parent := common(d.Lower)
	if err := unix.Chdir(parent); err != nil {
		return -1, &os.PathError{Op: "chdir", Path: parent, Err: err}
	}
	data, err := classicData(d, parent)
	if err != nil {
		return -1, err
	}
	flags := uintptr(0)
	if d.Upper == "" {
		flags = unix.MS_RDONLY
	}
	// Where it is mounted does not matter, since this namespace ends at once.
	if err := unix.Mount("overlay", ".", "overlay", flags, data); err != nil {
		return -1, fmt.Errorf("overlay of %d layers: %w", len(d.Lower), explain(d, err))
	}
	// By its full name: "." is still the directory below the mount.
	fd, err := unix.OpenTree(unix.AT_FDCWD, parent, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	return fd, os.NewSyscallError("open_tree overlay", err)
}

// explain finds the directory that is not there, which mount(2) does not name.
func explain(d Dirs, err error) error {
	for _, dir := range append([]string{d.Upper, d.Work}, d.Lower...) {
		if _, serr := os.Stat(dir); serr != nil && dir != "" {
			return serr
		}
	}
	return fmt.Errorf("%w (the kernel's log says more)", err)
}

func classicData(d Dirs, parent string) (string, error) {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	lower := make([]string, len(d.Lower))
	for i, l := range d.Lower {
		rel, err := filepath.Rel(parent, l)
		if err != nil {
			return "", err
		}
		lower[i] = escape.Replace(rel)
	}
	options := []string{"lowerdir=" + strings.Join(lower, ":")}
	if d.Upper != "" {
		options = append(options, "upperdir="+escape.Replace(d.Upper), "workdir="+escape.Replace(d.Work))
	}
	data := strings.Join(append(options, d.Options...), ",")
	if len(data) >= unix.Getpagesize() {
		return "", errors.New("the names of " + strconv.Itoa(len(d.Lower)) + " layers do not fit into a page, which is what this kernel takes; Linux 6.8 takes 500 layers")
	}
	return data, nil
}

// common is the longest directory above all of them.
func common(dirs []string) string {
	parent := filepath.Dir(dirs[0])
	for _, d := range dirs[1:] {
		for parent != "/" && parent != "." && !strings.HasPrefix(d, parent+"/") {
			parent = filepath.Dir(parent)
		}
	}
	return parent
}
