package terminal

import (
	"errors"
	"io"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// ErrDetached is what reading gives when the keys that detach were pressed.
var ErrDetached = errors.New("read escape sequence")

// DefaultDetachKeys are ctrl-p ctrl-q, as everywhere in the field.
func DefaultDetachKeys() []byte { return []byte{16, 17} }

// ParseDetachKeys reads a list such as "ctrl-a,x": single characters or ctrl- with a letter or one of @ [ \ ] ^ _.
func ParseDetachKeys(list string) ([]byte, error) {
	var out []byte
	for key := range strings.SplitSeq(list, ",") {
		name, ctrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1:
			out = append(out, key[0])
		case ctrl && len(name) == 1 && name[0] >= 'a' && name[0] <= 'z':
			out = append(out, name[0]-'a'+1)
		case ctrl && len(name) == 1 && name[0] >= 'A' && name[0] <= 'Z':
			out = append(out, name[0]-'A'+1)
		case ctrl && len(name) == 1 && strings.ContainsAny(name, `@[\]^_`):
			out = append(out, name[0]-'@')
		case key == "DEL":
			out = append(out, 127)
		default:
			return nil, errs.New(errs.Invalid, "invalid detach keys %q: %q is neither a single character nor ctrl- with a letter or one of @ [ \\ ] ^ _; write for example ctrl-p,ctrl-q", list, key)
		}
	}
	return out, nil
}

// DetachReader passes on what r gives until the keys appear in a row; then reading ends with ErrDetached. A beginning of
// the keys is held back until the next byte shows whether it goes on.
func DetachReader(r io.Reader, keys []byte) io.Reader {
	if len(keys) == 0 {
		return r
	}
	return &detachReader{r: r, keys: keys}
}

type detachReader struct {
	r       io.Reader
	keys    []byte
	matched int    // how many keys have been seen and held back
	ready   []byte // decided bytes that did not fit
	err     error
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.ready) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, max(len(p), 1))
		n, err := d.r.Read(buf)
		d.take(buf[:n])
		if err != nil && d.err == nil {
			d.ready = append(d.ready, d.keys[:d.matched]...)
			d.matched, d.err = 0, err
		}
	}
	n := copy(p, d.ready)
	d.ready = d.ready[n:]
	return n, nil
}

// take decides for each byte whether it goes on, is held back, or completes the keys.
func (d *detachReader) take(in []byte) {
	for _, b := range in {
		for d.matched > 0 && d.keys[d.matched] != b {
			// What was held back is not the beginning after all; a shorter beginning may still hang at its end.
			next := d.fallback()
			d.ready = append(d.ready, d.keys[:d.matched-next]...)
			d.matched = next
		}
		if d.keys[d.matched] != b {
			d.ready = append(d.ready, b)
			continue
		}
		if d.matched++; d.matched == len(d.keys) {
			d.matched, d.err = 0, ErrDetached
			return
		}
	}
}

// fallback is the length of the longest beginning of keys that ends what is held back, without being all of it.
func (d *detachReader) fallback() int {
	for n := d.matched - 1; n > 0; n-- {
		if string(d.keys[:n]) == string(d.keys[d.matched-n:d.matched]) {
			return n
		}
	}
	return 0
}
