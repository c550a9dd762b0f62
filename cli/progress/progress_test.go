package progress

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

const pull = `{"status":"Pulling from library/x","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbb"}
{"status":"Downloading","progressDetail":{"current":500,"total":1000},"id":"aaa"}
{"status":"Download complete","progressDetail":{},"id":"aaa"}
{"aux":{"Tag":"latest"}}
{"status":"Evil \u001b[2J text"}
`

func TestMessagesWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	var aux string
	if err := (Screen{Out: &out}).Messages(strings.NewReader(pull), func(m json.RawMessage) { aux = string(m) }); err != nil {
		t.Fatal(err)
	}
	want := "latest: Pulling from library/x\naaa: Pulling fs layer\nbbb: Pulling fs layer\naaa: Download complete\nEvil [2J text\n"
	if out.String() != want || aux != `{"Tag":"latest"}` {
		t.Errorf("got %q, aux %s", out.String(), aux)
	}
}

func TestMessagesOnTerminal(t *testing.T) {
	var out bytes.Buffer
	if err := (Screen{Out: &out, Width: 80}).Messages(strings.NewReader(pull), nil); err != nil {
		t.Fatal(err)
	}
	// aaa is the second of three lines: two up, rewritten, two down.
	if want := "\x1b[2A\x1b[2K\raaa: Downloading     500B/1kB\r\x1b[2B"; !strings.Contains(out.String(), want) {
		t.Errorf("%q does not contain %q", out.String(), want)
	}
}

func TestMessagesErrors(t *testing.T) {
	for in, want := range map[string]string{
		`{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}`: "manifest unknown",
		`{"error":"old engines"}`: "old engines",
		`{"status":"x"`:           "unexpected EOF",
		`nonsense`:                "invalid character",
	} {
		err := (Screen{Out: io.Discard}).Messages(strings.NewReader(in), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestBytesShowsAfterASecond(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	b := NewBytes(Screen{Out: &out, Width: 60}, "Saving", 4000, func() time.Time { return now })
	w := b.Writer(io.Discard)
	w.Write(make([]byte, 1000))
	if out.Len() > 0 {
		t.Errorf("shown at once: %q", out.String())
	}
	now = now.Add(2 * time.Second)
	w.Write(make([]byte, 1000))
	if want := "Saving 2kB/4kB (50%)  1kB/s"; !strings.Contains(out.String(), want) {
		t.Errorf("%q does not contain %q", out.String(), want)
	}
	b.Done()
	if !strings.HasSuffix(out.String(), "\r\x1b[2K") || b.Total() != 2000 {
		t.Errorf("not wiped: %q, total %d", out.String(), b.Total())
	}
}

// A terminal that becomes narrower gets shorter lines, and a line that has left it is not written over another's.
func TestTerminalChanges(t *testing.T) {
	var in strings.Builder
	for _, id := range []string{"aaa", "bbb", "ccc", "ddd"} {
		in.WriteString(`{"status":"Waiting for something that takes long","id":"` + id + `"}` + "\n")
	}
	in.WriteString(`{"status":"Downloading","progressDetail":{"current":500,"total":1000},"id":"aaa"}` + "\n")
	in.WriteString(`{"status":"Downloading","progressDetail":{"current":500,"total":1000},"id":"ddd"}` + "\n")
	columns, n := []int{80, 20, 20, 20, 12, 12}, 0
	var out bytes.Buffer
	s := Screen{Out: &out, Width: 80, Size: func() (int, int) { n++; return 3, columns[min(n-1, 5)] }}
	if err := s.Messages(strings.NewReader(in.String()), nil); err != nil {
		t.Fatal(err)
	}
	want := "aaa: Waiting for something that takes long\nbbb: Waiting for som\nccc: Waiting for som\nddd: Waiting for som\n\x1b[1A\x1b[2K\rddd: Downloa\r\x1b[1B"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	out.Reset()
	now := time.Unix(0, 0)
	b := NewBytes(Screen{Out: &out, Width: 80, Size: func() (int, int) { return 5, 12 }}, "Sending", 0, func() time.Time { return now })
	now = now.Add(2 * time.Second)
	_, _ = io.Copy(io.Discard, b.Reader(strings.NewReader("hello")))
	if got := out.String(); got != "\r\x1b[2KSending 5B " {
		t.Errorf("%q", got)
	}
}
