package engine

import (
	"bytes"
	"io"
	"strings"
)

// defaultDetachKeys are ctrl-p ctrl-q.
var defaultDetachKeys = []byte{16, 17}

// parseDetachKeys reads "ctrl-p,ctrl-q", "ctrl-@", "a,b": the keys by which a client leaves a container.
func parseDetachKeys(text string) ([]byte, error) {
	if text == "" {
		return defaultDetachKeys, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		name, ctrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case ctrl && len(name) == 1 && name[0] >= 'a' && name[0] <= 'z':
			keys = append(keys, name[0]-'a'+1)
		case ctrl && len(name) == 1 && strings.Contains("@[\\]^_", name):
			at := strings.Index("[\\]^_", name)
			if at < 0 {
				keys = append(keys, 0)
			} else {
				keys = append(keys, byte(27+at))
			}
		case !ctrl && len(key) == 1:
			keys = append(keys, key[0])
		default:
			return nil, invalid("Invalid detach keys (%s) provided: %q is neither one character nor ctrl- and one of a-z @ [ \\ ] ^ _", text, key)
		}
	}
	return keys, nil
}

// detachReader passes a client's input on until the detach keys come. What might be the beginning of the keys is held
// back until it is clear.
type detachReader struct {
	r    io.Reader
	keys []byte
	held int    // how many of the keys were seen and held back
	out  []byte // ready to be read
	err  error
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, max(len(p), 1))
		n, err := d.r.Read(buf)
		d.feed(buf[:n])
		if d.err == nil && err != nil {
			d.out = append(d.out, d.keys[:d.held]...)
			d.held, d.err = 0, err
		}
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

func (d *detachReader) feed(data []byte) {
	for _, b := range data {
		if d.err != nil {
			return
		}
		pending := append(bytes.Clone(d.keys[:d.held]), b)
		// What is pending may still begin the keys, in whole or from a later byte on.
		for len(pending) > 0 && !bytes.HasPrefix(d.keys, pending) {
			d.out = append(d.out, pending[0])
			pending = pending[1:]
		}
		if d.held = len(pending); d.held == len(d.keys) {
			d.held, d.err = 0, errDetached
		}
	}
}
