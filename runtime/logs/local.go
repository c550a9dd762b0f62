package logs

import (
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// local is the driver local; logrecord describes its format.
type local struct {
	r    *rotating
	head [logrecord.HeaderSize]byte
	tail [logrecord.TrailerSize]byte
	vec  [3][]byte
}

func openLocal(path string, limit logopts.File, compressor []string) (*local, error) {
	r, err := openRotating(path, limit, compressor)
	if err != nil {
		return nil, err
	}
	l := &local{r: r}
	if err := l.mend(); err != nil {
		r.close()
		return nil, err
	}
	return l, nil
}

// mend cuts off a record that a crash of the machine left half-written.
func (l *local) mend() error {
	if l.r.size == 0 || l.wholeAt(l.r.size) {
		return nil
	}
	var at int64
	var head [logrecord.HeaderSize]byte
	for at < l.r.size {
		if _, err := l.r.f.ReadAt(head[:], at); err != nil {
			break
		}
		h, err := logrecord.ParseHeader(head[:])
		if err != nil || at+int64(h.Size) > l.r.size || !l.wholeAt(at+int64(h.Size)) {
			break
		}
		at += int64(h.Size)
	}
	l.r.size = at
	return l.r.f.Truncate(at)
}

// wholeAt says whether a record ends at the offset.
func (l *local) wholeAt(end int64) bool {
	if end < logrecord.HeaderSize+logrecord.TrailerSize {
		return false
	}
	var tail [logrecord.TrailerSize]byte
	if _, err := l.r.f.ReadAt(tail[:], end-logrecord.TrailerSize); err != nil {
		return false
	}
	n, err := logrecord.ParseTrailer(tail[:])
	if err != nil || int64(n) > end {
		return false
	}
	var head [logrecord.HeaderSize]byte
	if _, err := l.r.f.ReadAt(head[:], end-int64(n)); err != nil {
		return false
	}
	h, err := logrecord.ParseHeader(head[:])
	return err == nil && h.Size == n
}

// Log writes a record.
func (l *local) Log(b Batch) error {
	n := len(b.Data) + logrecord.HeaderSize + logrecord.TrailerSize
	if l.r.full(n) {
		if err := l.r.rotate(); err != nil {
			return err
		}
	}
	logrecord.PutHeader(&l.head, &l.tail, len(b.Data), b.Stderr, b.Partial, b.Time.UnixNano())
	l.vec = [3][]byte{l.head[:], b.Data, l.tail[:]}
	err := l.r.writev(l.vec[:])
	l.vec[1] = nil
	return err
}

// Compresses says whether a rotated file is being compressed.
func (l *local) Compresses() bool { return l.r.busy.Load() }

// Close ends the log.
func (l *local) Close() error { return l.r.close() }
