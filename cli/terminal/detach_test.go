package terminal

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestParseDetachKeys(t *testing.T) {
	for list, want := range map[string]string{"ctrl-p,ctrl-q": "\x10\x11", "a,b": "ab", "ctrl-A": "\x01", "ctrl-@,ctrl-_": "\x00\x1f", "ctrl-\\": "\x1c", "DEL": "\x7f"} {
		if got, err := ParseDetachKeys(list); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", list, got, err, want)
		}
	}
	for _, list := range []string{"", "ctrl-", "ctrl-1", "ab", "ctrl-aa", "a,,b"} {
		if got, err := ParseDetachKeys(list); err == nil {
			t.Errorf("%q: %q, want an error", list, got)
		}
	}
}

// TestDetachReader compares with the obvious way, looking for the keys in the whole input.
func TestDetachReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SampledFrom([]byte{'a', 'b', 'c'})
		keys := rapid.SliceOfN(letters, 1, 4).Draw(t, "keys")
		in := rapid.SliceOfN(letters, 0, 30).Draw(t, "input")
		var r io.Reader = bytes.NewReader(in)
		if rapid.Bool().Draw(t, "one byte at a time") {
			r = iotest.OneByteReader(r)
		}
		got, err := io.ReadAll(DetachReader(r, keys))
		want, wantErr := in, error(nil)
		if i := bytes.Index(in, keys); i >= 0 {
			want, wantErr = in[:i], ErrDetached
		}
		if !bytes.Equal(got, want) || !errors.Is(err, wantErr) {
			t.Fatalf("keys %q, input %q: %q, %v; want %q, %v", keys, in, got, err, want, wantErr)
		}
	})
}
