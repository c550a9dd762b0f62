package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/logs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

var all = model.LogOptions{Stdout: true, Stderr: true, Tail: -1}

func open(t testing.TB, driver, path string, opts map[string]string) logs.Driver {
	t.Helper()
	d, err := logs.Open(spec.LogTarget{Driver: driver, Path: path, Options: opts}, logs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t testing.TB, src Source, opts model.LogOptions) []string {
	t.Helper()
	var got []string
	err := Read(context.Background(), src, opts, func(e model.LogEntry) error {
		mark := "o"
		if e.Stderr {
			mark = "e"
		}
		if e.Partial {
			mark += "+"
		}
		got = append(got, mark+string(e.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func at(n int) time.Time { return time.Unix(int64(1000+n), 0) }

func TestReadWhatWasWritten(t *testing.T) {
	for _, driver := range []string{"local", "json-file"} {
		for _, opts := range []map[string]string{nil, {"max-size": "2k", "max-file": "3"}, {"max-size": "2k", "max-file": "4", "compress": "true"}} {
			t.Run(fmt.Sprint(driver, opts), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "d", "c.log")
				d := open(t, driver, path, opts)
				var want []string
				for i := range 300 {
					line := fmt.Sprintf("line %d\n", i)
					if err := d.Log(logs.Batch{Time: at(i), Stderr: i%3 == 0, Data: []byte(line)}); err != nil {
						t.Fatal(err)
					}
					want = append(want, map[bool]string{true: "e", false: "o"}[i%3 == 0]+line)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				src := Source{Driver: driver, Path: path}
				got := read(t, src, all)
				if opts == nil && len(got) != 300 || len(got) < 30 || strings.Join(got, "") != strings.Join(want[300-len(got):], "") {
					t.Fatalf("%d lines: %q", len(got), got)
				}
				for _, n := range []int{0, 1, 7, len(got) - 1, len(got), 1000} {
					o := all
					o.Tail = n
					from := max(0, len(got)-n)
					if tail := read(t, src, o); strings.Join(tail, "") != strings.Join(got[from:], "") {
						t.Fatalf("tail %d: %d lines %q", n, len(tail), tail)
					}
				}
				o := all
				o.Since, o.Until = at(290), at(295)
				if span := read(t, src, o); strings.Join(span, "") != strings.Join(want[290:296], "") {
					t.Fatalf("span %q", span)
				}
				o = model.LogOptions{Stderr: true, Tail: 2}
				if e := read(t, src, o); strings.Join(e, "") != want[294]+want[297] {
					t.Fatalf("stderr %q", e)
				}
			})
		}
	}
}

func TestLongLinesAndSplitter(t *testing.T) {
	for _, driver := range []string{"local", "json-file"} {
		rapid.Check(t, func(rt *rapid.T) {
			path := filepath.Join(t.TempDir(), "c.log")
			d := open(t, driver, path, nil)
			var in bytes.Buffer
			for range rapid.IntRange(0, 6).Draw(rt, "lines") {
				in.WriteString(strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 100, 16383, 16384, 16385, 40000}).Draw(rt, "n")))
				in.WriteByte('\n')
			}
			in.WriteString(strings.Repeat("y", rapid.SampledFrom([]int{0, 5, 20000}).Draw(rt, "rest")))
			var s logs.Splitter
			emit := func(data []byte, partial bool) {
				if err := d.Log(logs.Batch{Time: at(0), Partial: partial, Data: data}); err != nil {
					t.Fatal(err)
				}
			}
			for data := in.Bytes(); len(data) > 0; {
				n := min(len(data), rapid.SampledFrom([]int{1, 1000, 16384, 65536}).Draw(rt, "read"))
				s.Feed(data[:n], emit)
				data = data[n:]
			}
			s.Flush(emit)
			d.Close()
			want := in.String()
			var got strings.Builder
			err := Read(context.Background(), Source{Driver: driver, Path: path}, all, func(e model.LogEntry) error {
				open := e.Data[len(e.Data)-1] != '\n'
				if len(e.Data) > 16385 || e.Partial != (open && len(e.Data) >= 16381) {
					rt.Fatalf("entry of %d bytes, partial %v", len(e.Data), e.Partial)
				}
				got.Write(e.Data)
				return nil
			})
			if err != nil || got.String() != want {
				rt.Fatalf("%v: %d bytes instead of %d", err, got.Len(), len(want))
			}
		})
	}
}

func TestFollowAcrossRotation(t *testing.T) {
	for _, driver := range []string{"local", "json-file"} {
		t.Run(driver, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.log")
			d := open(t, driver, path, map[string]string{"max-size": "20k", "max-file": "50", "compress": "true"})
			const lines = 5000
			running, first := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(running)
				for i := range lines {
					if err := d.Log(logs.Batch{Time: at(i), Data: []byte(strconv.Itoa(i) + "\n")}); err != nil {
						t.Error(err)
					}
					if i == 0 {
						<-first
					}
				}
				d.Close()
			}()
			next := 0
			o := all
			o.Follow = true
			err := Read(context.Background(), Source{Driver: driver, Path: path, Running: running}, o, func(e model.LogEntry) error {
				if string(e.Data) != strconv.Itoa(next)+"\n" {
					return fmt.Errorf("%q where %d was due", e.Data, next)
				}
				if next++; next == 1 {
					close(first)
				}
				return nil
			})
			if err != nil || next != lines {
				t.Fatal(next, err)
			}
		})
	}
}

func TestFollowEndsWithTheReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	d := open(t, "local", path, nil)
	defer d.Close()
	d.Log(logs.Batch{Time: at(0), Data: []byte("x\n")})
	o := all
	o.Follow = true
	ctx, cancel := context.WithCancel(context.Background())
	if err := Read(ctx, Source{Driver: "local", Path: path, Running: make(chan struct{})}, o, func(model.LogEntry) error {
		cancel()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := Read(context.Background(), Source{Driver: "local", Path: path, Running: make(chan struct{})}, o, func(model.LogEntry) error { return stop }); err != stop {
		t.Fatal(err)
	}
}

func TestTornTail(t *testing.T) {
	for _, driver := range []string{"local", "json-file"} {
		path := filepath.Join(t.TempDir(), "c.log")
		d := open(t, driver, path, nil)
		d.Log(logs.Batch{Time: at(0), Data: []byte("first\n")})
		d.Log(logs.Batch{Time: at(0), Data: []byte("second\n")})
		d.Close()
		st, _ := os.Stat(path)
		os.Truncate(path, st.Size()-3)
		if got := read(t, Source{Driver: driver, Path: path}, all); strings.Join(got, "") != "ofirst\n" {
			t.Fatalf("%s torn: %q", driver, got)
		}
		d = open(t, driver, path, nil)
		d.Log(logs.Batch{Time: at(0), Data: []byte("third\n")})
		d.Close()
		if got := read(t, Source{Driver: driver, Path: path}, all); strings.Join(got, "") != "ofirst\nothird\n" {
			t.Fatalf("%s mended: %q", driver, got)
		}
	}
}

func TestDamageIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	os.WriteFile(path, []byte("this is no log at all, not by any means\n"), 0o600)
	err := Read(context.Background(), Source{Driver: "local", Path: path}, all, func(model.LogEntry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
}

func TestNothing(t *testing.T) {
	if got := read(t, Source{Driver: "local", Path: filepath.Join(t.TempDir(), "none")}, all); got != nil {
		t.Fatal(got)
	}
	if err := Read(context.Background(), Source{Driver: "none"}, all, nil); err == nil {
		t.Fatal("none can be read")
	}
}

func TestChoose(t *testing.T) {
	l, e := Choose(map[string]string{"labels": "a, b", "labels-regex": "^x", "env": "P"}, map[string]string{"a": "1", "x1": "2", "c": "3"}, []string{"P=/bin", "Q=1"})
	if len(l) != 2 || l["a"] != "1" || l["x1"] != "2" || len(e) != 1 || e["P"] != "/bin" {
		t.Fatal(l, e)
	}
	if err := Validate("local", map[string]string{"labels-regex": "("}); err == nil {
		t.Fatal("accepted")
	}
}

// What is written while a log is read without following does not belong to it: else the last line would be two, and a
// program that prints faster than the client reads would keep it for ever.
func TestReadEndsWhereTheLogWas(t *testing.T) {
	for _, driver := range []string{"local", "json-file"} {
		path := filepath.Join(t.TempDir(), "c.log")
		d := open(t, driver, path, nil)
		line := func(i int) {
			if err := d.Log(logs.Batch{Time: at(i), Data: fmt.Appendf(nil, "line %d\n", i)}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5 {
			line(i)
		}
		for tail, want := range map[int]string{-1: "line 0\nline 1\nline 2\nline 3\nline 4\n", 1: "line 4\n"} {
			r, err := newReader(Source{Driver: driver, Path: path}, model.LogOptions{Stdout: true, Tail: tail}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			n := 0
			r.emit = func(e model.LogEntry) error {
				got.Write(e.Data)
				if n++; n > 20 {
					return errors.New("it does not end")
				}
				line(100 + n)
				return nil
			}
			line(99) // after the look at the files
			if err := r.run(t.Context()); err != nil || got.String() != want {
				t.Errorf("%s: the last %d: %q, %v", driver, tail, got.String(), err)
			}
			r.close()
			d.Close()
			os.Remove(path)
			d = open(t, driver, path, nil)
			for i := range 5 {
				line(i)
			}
		}
		d.Close()
	}
}

// However much comes at once, no file becomes larger than it may, not the first either.
func TestOneBatchFillsManyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	d := open(t, "json-file", path, map[string]string{"max-size": "1k", "max-file": "2"})
	var text strings.Builder
	for i := range 40 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	if err := d.Log(logs.Batch{Time: at(0), Data: []byte(text.String())}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".1"} {
		if st, err := os.Stat(name); err != nil || st.Size() > 1<<10 {
			t.Errorf("%v %v", st, err)
		}
	}
	if got := read(t, Source{Driver: "json-file", Path: path}, all); got[len(got)-1] != "oline 39\n" || len(got) > 30 {
		t.Errorf("%q", got)
	}
}

// What Docker 20.10 shows and writes of the same output (driver json-file), except that to it a piece of a long line is a
// line, too, when the last lines are counted.
func TestOpenLastLine(t *testing.T) {
	long := strings.Repeat("x", 20000)
	run := "one\n" + long + "\nopen"
	for _, driver := range []string{"local", "json-file"} {
		path := filepath.Join(t.TempDir(), "c.log")
		for i := range 2 { // two runs: the second goes on where the first ended
			d := open(t, driver, path, nil)
			var s logs.Splitter
			emit := func(data []byte, partial bool) {
				if err := d.Log(logs.Batch{Time: at(i), Partial: partial, Data: data}); err != nil {
					t.Fatal(err)
				}
			}
			s.Feed([]byte(run), emit)
			s.Flush(emit)
			d.Close()
		}
		src := Source{Driver: driver, Path: path}
		for tail, want := range []string{"", "open", long + "\nopen", run, "open" + run, long + "\nopen" + run, run + run, run + run} {
			for _, follow := range []bool{false, true} {
				o := all
				o.Tail, o.Follow = tail, follow
				var got strings.Builder
				for _, e := range read(t, src, o) {
					got.WriteString(strings.TrimPrefix(strings.TrimPrefix(e, "o"), "+"))
				}
				if got.String() != want {
					t.Errorf("%s, tail %d: %d bytes instead of %d: %.40q", driver, tail, got.Len(), len(want), got.String())
				}
			}
		}
		if driver == "json-file" {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var sizes []int
			for line := range bytes.Lines(data) {
				e, err := logrecord.ParseJSON(line)
				if err != nil {
					t.Fatal(err)
				}
				sizes = append(sizes, len(e.Log))
			}
			if want := []int{4, 16384, 3617, 4, 4, 16384, 3617, 4}; !slices.Equal(sizes, want) {
				t.Errorf("entries of %v bytes, Docker's have %v", sizes, want)
			}
		}
	}
}
