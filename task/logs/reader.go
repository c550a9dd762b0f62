package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

func unixNano(n int64) time.Time { return time.Unix(0, n) }

// piece is one file of the log, open.
type piece struct {
	f       *os.File
	zipped  bool
	inode   uint64             // of this file
	id      logrecord.Identity // of the log, also when this file is its compressed form
	number  int                // 0 is the one being written
	size    int64
	changed time.Time
}

// reader is one Read.
type reader struct {
	src    Source
	opts   model.LogOptions
	emit   func(model.LogEntry) error
	pieces []*piece // oldest first
	watch  *watch
	skip   int // lines that Tail leaves out, at the beginning of what is read
}

// errEnough ends a reading whose Until is reached.
var errEnough = errors.New("enough")

func newReader(src Source, opts model.LogOptions, emit func(model.LogEntry) error) (*reader, error) {
	if src.Driver == logopts.None {
		return nil, errs.New(errs.Unsupported, "the log driver none keeps nothing to read: choose local or json-file when the container is made")
	}
	if o, err := logopts.Parse(src.Driver, src.Options); err == nil && o.NoCopy {
		return nil, errs.New(errs.Unsupported, "the log driver %s keeps no copy to read here (cache-disabled): look where it sends to", src.Driver)
	}
	r := &reader{src: src, opts: opts, emit: emit}
	if opts.Follow {
		var err error
		if r.watch, err = newWatch(src.Path); err != nil { // before the first look, so that nothing falls between
			return nil, err
		}
	}
	if err := r.open(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reader) close() {
	closeAll(r.pieces)
	if r.watch != nil {
		r.watch.close()
	}
}

// open opens all files of the log.
func (r *reader) open() (err error) {
	r.pieces, err = openAll(r.src.Path)
	return err
}

// openAll opens all files of the log as of one moment, oldest first: names move up by one in a rotation, so what was
// opened counts only when the names still mean the same files afterwards. Every such moment is sound, also one in the
// middle of a rotation: a number may be missing, but no file is.
func openAll(path string) ([]*piece, error) {
	for {
		names, err := listFiles(path)
		if err != nil {
			return nil, errs.Wrap(err, "open the log")
		}
		list, complete, err := openFiles(path, names)
		if err != nil {
			return nil, errs.Wrap(err, "open the log")
		}
		if again, err := listFiles(path); err == nil && complete && maps.Equal(again, names) {
			return list, nil
		}
		closeAll(list)
	}
}

// listFiles gives the inodes of the log's files by name.
func listFiles(path string) (map[string]uint64, error) {
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	files := map[string]uint64{}
	for _, name := range all {
		if _, _, ok := fileNumber(filepath.Base(path), name); !ok {
			continue
		}
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			files[name] = st.Ino
		}
	}
	return files, nil
}

// fileNumber says which of the log's files a name is: 0 is the one being written.
func fileNumber(base, name string) (n int, zipped, ok bool) {
	rest, ok := strings.CutPrefix(name, base)
	if !ok || rest == "" {
		return 0, false, ok
	}
	rest, zipped = strings.CutSuffix(rest, ".gz")
	digits, ok := strings.CutPrefix(rest, ".")
	n, err := strconv.Atoi(digits)
	return n, zipped, ok && err == nil && n > 0 && strconv.Itoa(n) == digits
}

// openFiles opens the named files, oldest first; complete is false when one was gone or another by then.
func openFiles(path string, names map[string]uint64) (list []*piece, complete bool, err error) {
	complete = true
	for name, inode := range names {
		n, zipped, _ := fileNumber(filepath.Base(path), name)
		p, err := openPiece(filepath.Join(filepath.Dir(path), name), n, zipped)
		if errors.Is(err, fs.ErrNotExist) {
			complete = false
			continue
		}
		if err != nil {
			closeAll(list)
			return nil, false, err
		}
		list = append(list, p)
		complete = complete && p.inode == inode
	}
	slices.SortFunc(list, func(a, b *piece) int {
		if a.number != b.number {
			return b.number - a.number
		}
		if a.zipped { // of one number, the compressed one is older: the other took its place after a crash in a rotation
			return -1
		}
		return 1
	})
	return withoutTwins(list), complete, nil
}

// withoutTwins leaves out the compressed forms of files that are there as they were, too.
func withoutTwins(list []*piece) []*piece {
	plain := map[logrecord.Identity]bool{}
	for _, p := range list {
		plain[p.id] = plain[p.id] || !p.zipped
	}
	return slices.DeleteFunc(list, func(p *piece) bool {
		twin := p.zipped && plain[p.id]
		if twin {
			p.f.Close()
		}
		return twin
	})
}

func closeAll(list []*piece) {
	for _, p := range list {
		p.f.Close()
	}
}

// openPiece opens one file of the log.
func openPiece(name string, n int, zipped bool) (*piece, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	p := &piece{f: f, zipped: zipped, number: n, size: st.Size(), changed: st.ModTime(), inode: st.Sys().(*syscall.Stat_t).Ino}
	p.id = identity(st)
	if zipped {
		p.id = logrecord.Identity{}
		if z, err := gzip.NewReader(f); err == nil {
			p.id, _ = logrecord.ParseIdentity(z.Comment)
			p.changed = z.ModTime.Add(time.Second) // its resolution is a second
		}
		f.Seek(0, io.SeekStart)
	}
	return p, nil
}

func identity(st fs.FileInfo) logrecord.Identity {
	return logrecord.Identity{Inode: st.Sys().(*syscall.Stat_t).Ino, Size: st.Size(), Mtime: st.ModTime().UnixNano()}
}

func sameInode(path string, inode uint64) bool {
	st, err := os.Stat(path)
	return err == nil && st.Sys().(*syscall.Stat_t).Ino == inode
}

func (r *reader) run(ctx context.Context) error {
	if err := r.seekTail(); err != nil {
		return err
	}
	var last *piece
	for len(r.pieces) > 0 {
		p := r.pieces[0]
		last = p
		if len(r.pieces) == 1 {
			break
		}
		if err := r.readWhole(ctx, p); err != nil {
			return enough(err)
		}
		p.f.Close()
		r.pieces = r.pieces[1:]
	}
	if !r.opts.Follow {
		if last == nil {
			return nil
		}
		return enough(r.readNow(ctx, last))
	}
	return enough(r.follow(ctx, last))
}

func enough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// seekTail finds where the last Tail lines begin, and drops the pieces before.
func (r *reader) seekTail() error {
	if r.opts.Tail < 0 {
		return nil
	}
	c := counter{opts: &r.opts, want: r.opts.Tail}
	for i := len(r.pieces) - 1; i >= 0; i-- {
		p := r.pieces[i]
		if c.have >= c.want && (i < len(r.pieces)-1 || c.want > 0) {
			r.drop(i + 1)
			break
		}
		if p.zipped {
			n, err := r.countZipped(p)
			if err != nil {
				return err
			}
			c.have += n
			continue
		}
		offset, err := c.tailStart(r.src.Driver, p.f, p.size)
		if errors.Is(err, logrecord.ErrDamaged) { // from the beginning then: it is read as far as it is good
			offset, err = 0, nil
		}
		if err != nil {
			return errs.Wrap(err, "find the last %d lines of the log", c.want)
		}
		if _, err := p.f.Seek(offset, io.SeekStart); err != nil {
			return err
		}
		if c.have >= c.want {
			r.drop(i)
			break
		}
	}
	r.skip = max(0, c.have-c.want)
	return nil
}

// drop forgets the first n pieces.
func (r *reader) drop(n int) {
	closeAll(r.pieces[:n])
	r.pieces = r.pieces[n:]
}

func (r *reader) countZipped(p *piece) (lines int, err error) {
	z, err := gzip.NewReader(p.f)
	if err != nil {
		return 0, fmt.Errorf("read the compressed log %s: %w", p.f.Name(), err)
	}
	f := newFormat(r.src.Driver, z)
	for {
		err := f.next(func(e model.LogEntry) error {
			if want, _ := pick(&r.opts, e.Stderr, e.Time); want && !e.Partial {
				lines++
			}
			return nil
		})
		if err != nil {
			_, serr := p.f.Seek(0, io.SeekStart)
			return lines, serr // what is damaged is met again when it is read
		}
	}
}

// take emits an entry that is wanted.
func (r *reader) take(e model.LogEntry) error {
	want, past := pick(&r.opts, e.Stderr, e.Time)
	if past {
		return errEnough
	}
	if !want {
		return nil
	}
	if r.skip > 0 {
		if !e.Partial {
			r.skip--
		}
		return nil
	}
	return r.emit(e)
}

// filter lets the format local pass over records without cutting them into lines.
func (r *reader) format(f io.Reader) format {
	x := newFormat(r.src.Driver, f)
	if l, ok := x.(*localFormat); ok {
		l.filter = func(h logrecord.Header) bool {
			want, past := pick(&r.opts, h.Stderr, unixNano(h.Time))
			return want || past
		}
	}
	return x
}

// readNow reads the file being written as far as it was when it was opened: the last lines are counted from there, and a
// program that prints faster than the client reads must not keep it for ever.
func (r *reader) readNow(ctx context.Context, p *piece) error {
	if p.zipped {
		return r.readWhole(ctx, p)
	}
	at, err := p.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	return r.readAll(ctx, p, io.LimitReader(p.f, max(0, p.size-at)))
}

// readWhole reads a file that does not grow.
func (r *reader) readWhole(ctx context.Context, p *piece) error {
	if !r.opts.Since.IsZero() && p.number > 0 && p.changed.Before(r.opts.Since) && r.skip == 0 {
		return nil
	}
	var in io.Reader = p.f
	if p.zipped {
		z, err := gzip.NewReader(p.f)
		if err != nil {
			return fmt.Errorf("read the compressed log %s: %w", p.f.Name(), err)
		}
		in = z
	}
	return r.readAll(ctx, p, in)
}

func (r *reader) readAll(ctx context.Context, p *piece, in io.Reader) error {
	f := r.format(in)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch err := f.next(r.take); {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, logrecord.ErrDamaged), errors.Is(err, gzip.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
			return errs.New(errs.Damaged, "the log file %s: %w", p.f.Name(), err)
		case err != nil:
			return err
		}
	}
}

// follow reads the file being written as it grows, and its successors, until the container has ended and all is read.
func (r *reader) follow(ctx context.Context, p *piece) error {
	running := r.src.Running
	ended := running == nil
	for {
		if p == nil { // no log yet
			if list, err := openAll(r.src.Path); err != nil {
				return err
			} else if len(list) > 0 {
				r.pieces, p = list, list[0]
			}
		}
		var f format
		for p != nil {
			if f == nil {
				f = r.format(p.f)
			}
			err := f.next(r.take)
			if err == nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			}
			if errors.Is(err, logrecord.ErrDamaged) {
				return errs.New(errs.Damaged, "the log file %s: %w", p.f.Name(), err)
			}
			if !errors.Is(err, io.EOF) {
				return err
			}
			moved := !sameInode(r.src.Path, p.inode)
			if moved { // all that was written before the rotation is there by now: read again before leaving it
				for err = f.next(r.take); err == nil; err = f.next(r.take) {
				}
				if !errors.Is(err, io.EOF) {
					return err
				}
				next, err := r.after(p)
				if err != nil {
					return err
				}
				if next != nil {
					p, f = next, nil
					continue
				}
			}
			if ended {
				return nil
			}
			if err := r.wait(ctx, &running, &ended); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
		if err := r.wait(ctx, &running, &ended); err != nil {
			return err
		}
	}
}

func (r *reader) wait(ctx context.Context, running *<-chan struct{}, ended *bool) error {
	var until <-chan time.Time
	if !r.opts.Until.IsZero() {
		timer := time.NewTimer(time.Until(r.opts.Until))
		defer timer.Stop()
		until = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.watch.changed:
	case <-*running:
		*running, *ended = nil, true
	case <-until:
		*ended = true
	}
	return nil
}

// after opens the file that was begun after p was full. When several rotations went by, it is not the newest.
func (r *reader) after(p *piece) (*piece, error) {
	list, err := openAll(r.src.Path)
	if err != nil {
		return nil, err
	}
	id := p.id
	if st, err := p.f.Stat(); err == nil && !p.zipped { // it grew since it was opened
		id = identity(st)
	}
	from := slices.IndexFunc(list, func(q *piece) bool { return q.id == id })
	// Not found: it was deleted, so everything that is left is newer.
	if from+1 >= len(list) {
		closeAll(list)
		return nil, nil
	}
	closeAll(append(list[:from+1:from+1], r.pieces...))
	r.pieces = list[from+1:]
	for len(r.pieces) > 1 && r.pieces[0].zipped { // compressed already: whole, so it needs no following
		if err := r.readWhole(context.Background(), r.pieces[0]); err != nil {
			return nil, err
		}
		r.drop(1)
	}
	return r.pieces[0], nil
}
