package logs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// FuzzRead reads log files as a crash, a full disk or somebody's editor may have left them, whole and from their end. The
// reader says what is wrong or leaves it out; it never gives more than there is.
func FuzzRead(f *testing.F) {
	var head [logrecord.HeaderSize]byte
	var tail [logrecord.TrailerSize]byte
	logrecord.PutHeader(&head, &tail, 5, true, false, 1_800_000_000_000_000_000)
	record := append(append(head[:], "hello"...), tail[:]...)
	f.Add(false, record, 1)
	f.Add(false, append(bytes.Repeat(record, 3), record[:7]...), 2)
	f.Add(true, []byte(`{"log":"hello\n","stream":"stdout","time":"2026-01-01T00:00:00.000000001Z"}`+"\n"+`{"log":"x`), 1)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, json bool, data []byte, last int) {
		src := Source{Driver: logopts.Local, Path: filepath.Join(dir, "log")}
		if json {
			src.Driver = logopts.JSONFile
		}
		if err := os.WriteFile(src.Path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{-1, last & 0xff} {
			total := 0
			Read(context.Background(), src, model.LogOptions{Stdout: true, Stderr: true, Tail: n}, func(e model.LogEntry) error {
				total += len(e.Data)
				return nil
			})
			if total > 4*len(data)+4 { // JSON has escapes, and bytes that are no UTF-8 become three
				t.Errorf("%d bytes of a log of %d", total, len(data))
			}
		}
	})
}
