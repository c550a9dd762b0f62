package logs

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// rotating is a log file with a bound: PATH is written, PATH.1 is the one before, and so on; with compression PATH.1.gz.
type rotating struct {
	path       string
	limit      logopts.File
	compressor []string

	f       *os.File
	fd      int
	size    int64
	working sync.WaitGroup // a compression that runs
	busy    atomic.Bool    // the same, for who only asks
}

func openRotating(path string, limit logopts.File, compressor []string) (*rotating, error) {
	if path == "" {
		return nil, errs.New(errs.Invalid, "the log target has no path")
	}
	r := &rotating{path: path, limit: limit, compressor: compressor}
	if err := r.open(); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o710); err != nil {
			return nil, err
		}
		if err := r.open(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *rotating) open() error {
	fd, err := unix.Open(r.path, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return &os.PathError{Op: "open", Path: r.path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	r.f, r.fd, r.size = os.NewFile(uintptr(fd), r.path), fd, st.Size
	return nil
}

// writev writes the parts as one, so that a reader never sees a record with another one's bytes in it; after a failure
// (disk full) it takes the torn part away.
func (r *rotating) writev(parts [][]byte) error {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	n, err := unix.Writev(r.fd, parts)
	for err == syscall.EINTR {
		n, err = unix.Writev(r.fd, parts)
	}
	if err == nil && n < total {
		err = syscall.ENOSPC
	}
	if err != nil {
		if n > 0 {
			unix.Ftruncate(r.fd, r.size)
		}
		return errs.Wrap(err, "write %s", r.path)
	}
	r.size += int64(n)
	return nil
}

// full says whether the file must be rotated before n more bytes.
func (r *rotating) full(n int) bool { return r.size > 0 && r.exceeded(n) }

// exceeded says whether n more bytes are more than the file may hold, even an empty one.
func (r *rotating) exceeded(n int) bool {
	return r.limit.MaxSize > 0 && r.size+int64(n) > r.limit.MaxSize
}

// rotate moves the files one number up and begins a new one.
func (r *rotating) rotate() error {
	r.awaitCompression()
	if r.limit.MaxFile < 2 {
		// Readers notice a file that became shorter; a new file is safer for them than a truncated one.
		if err := os.Remove(r.path); err != nil {
			return err
		}
		r.f.Close()
		return r.open()
	}
	name := func(n int) string { return r.path + "." + strconv.Itoa(n) }
	last := r.limit.MaxFile - 1
	for n := last; n >= 1; n-- {
		for _, ext := range []string{".gz", ""} { // of one number the compressed one is older
			err := error(nil)
			if n == last {
				err = os.Remove(name(n) + ext)
			} else {
				err = os.Rename(name(n)+ext, name(n+1)+ext)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := os.Rename(r.path, name(1)); err != nil {
		return err
	}
	r.f.Close()
	if err := r.open(); err != nil {
		return err
	}
	if r.limit.Compress {
		r.compress(name(1))
	}
	return nil
}

// compress starts the compression of a rotated file: in a process of its own, because its tables would stay in the
// supervisor's memory.
func (r *rotating) compress(path string) {
	if len(r.compressor) == 0 {
		r.working.Go(func() { Compress(path) })
		return
	}
	in, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return // the file stays as it is; readers take both
	}
	defer in.Close()
	if err := unix.Flock(int(in.Fd()), unix.LOCK_EX); err != nil {
		return
	}
	args := append(append([]string{}, r.compressor...), path)
	p, err := os.StartProcess(args[0], args, &os.ProcAttr{Dir: "/", Env: []string{"GOMAXPROCS=1"}, Sys: &syscall.SysProcAttr{Setsid: true},
		Files: []*os.File{nil, nil, nil, in}}) // it has the lock as long as it lives
	if err != nil {
		return
	}
	r.busy.Store(true)
	r.working.Go(func() { p.Wait(); r.busy.Store(false) })
}

// awaitCompression waits for the compression of the file that was rotated last, also for one that a killed supervisor began:
// it is about to remove the file whose name another is to have, and two of them would write into one.
func (r *rotating) awaitCompression() {
	r.working.Wait()
	if !r.limit.Compress {
		return
	}
	fd, err := unix.Open(r.path+".1", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // it is compressed
	}
	for unix.Flock(fd, unix.LOCK_EX) == unix.EINTR {
	}
	unix.Close(fd)
}

func (r *rotating) close() error {
	r.working.Wait()
	return r.f.Close()
}

// Compress replaces path by path.gz. The gzip header's comment says which file it was, so that a reader who follows knows
// where it stood.
func Compress(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	temp := path + ".gz.tmp"
	out, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	z, _ := gzip.NewWriterLevel(out, gzip.BestSpeed)
	z.Header.ModTime = st.ModTime()
	z.Header.Comment = logrecord.Identity{Inode: st.Sys().(*syscall.Stat_t).Ino, Size: st.Size(), Mtime: st.ModTime().UnixNano()}.String()
	_, err = io.Copy(z, in)
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, path+".gz")
	}
	if err != nil {
		os.Remove(temp)
		return errs.Wrap(err, "compress %s", path)
	}
	return os.Remove(path)
}
