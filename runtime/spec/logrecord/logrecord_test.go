package logrecord

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestJSONIsDockers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	got := string(AppendJSON(nil, []byte("a\t<b>&\"\\\x01\xff\u2028é\r\n"), true, []byte(`{"tag":"x"}`), at))
	want := `{"log":"a\u0009\u003cb\u003e\u0026\"\\\u0001\ufffd\u2028é\r\n","stream":"stderr","attrs":{"tag":"x"},"time":"2026-01-02T03:04:05.0000006Z"}` + "\n"
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.String().Draw(t, "line")
		line := AppendJSON(nil, []byte(in), false, nil, time.Unix(1, 2))
		if !json.Valid(line) || bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("not one JSON line: %q", line)
		}
		e, err := ParseJSON(line)
		if err != nil || (utf8.ValidString(in) && e.Log != in) || e.Stream != "stdout" || !e.Time.Equal(time.Unix(1, 2)) {
			t.Fatalf("%q → %+v, %v", in, e, err)
		}
	})
}

func TestHeaderRoundTrip(t *testing.T) {
	var head [HeaderSize]byte
	var tail [TrailerSize]byte
	PutHeader(&head, &tail, 5, true, true, 77)
	h, err := ParseHeader(head[:])
	if err != nil || h != (Header{25, true, true, 77}) || h.DataSize() != 5 {
		t.Fatal(h, err)
	}
	if n, err := ParseTrailer(tail[:]); n != 25 || err != nil {
		t.Fatal(n, err)
	}
	head[5] = 'x'
	if _, err := ParseHeader(head[:]); err != ErrDamaged {
		t.Fatal(err)
	}
}

func TestPiecesJoinToTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		for range rapid.IntRange(0, 4).Draw(t, "lines") {
			data = append(data, bytes.Repeat([]byte(rapid.SampledFrom([]string{"x", "é", "日"}).Draw(t, "c")), rapid.IntRange(0, 20000).Draw(t, "n"))...)
			data = append(data, '\n')
		}
		var got []byte
		err := Pieces(data, false, func(p []byte, partial bool) error {
			if partial != (p[len(p)-1] != '\n') || len(p) > Split+1 || !utf8.Valid(p) {
				t.Fatalf("piece of %d, partial %v", len(p), partial)
			}
			got = append(got, p...)
			return nil
		})
		if err != nil || !bytes.Equal(got, data) {
			t.Fatal("pieces do not join to the whole")
		}
	})
}

func TestIdentity(t *testing.T) {
	want := Identity{Inode: 12, Size: 34, Mtime: 56}
	if got, ok := ParseIdentity(want.String()); !ok || got != want {
		t.Fatal(got, ok)
	}
	if _, ok := ParseIdentity("made by gzip"); ok {
		t.Fatal("nonsense was read")
	}
}
