package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/runtime/spec"
)

// A rotation waits for a compression that another process began, such as a supervisor that was killed: both would write
// into one file, and the first to end would remove what the second one reads.
func TestRotationWaitsForAnotherCompression(t *testing.T) {
	dir := t.TempDir()
	gate, began, done := filepath.Join(dir, "gate"), filepath.Join(dir, "began"), filepath.Join(dir, "done")
	for _, fifo := range []string{gate, began} {
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target := spec.LogTarget{Driver: "local", Path: filepath.Join(dir, "log"), Options: map[string]string{"max-size": "1k", "max-file": "5"}}
	open := func(compressor ...string) Driver {
		d, err := Open(target, Options{Compressor: compressor})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	write := func(d Driver) {
		if err := d.Log(Batch{Time: time.Unix(1, 0), Data: bytes.Repeat([]byte("x"), 900)}); err != nil {
			t.Error(err)
		}
	}
	killed := open("/bin/sh", "-c", `echo >"$2"; read x <"$1"; : >"$3"`, "sh", gate, began, done)
	write(killed)
	write(killed) // rotates
	if b, err := os.ReadFile(began); err != nil || len(b) != 1 {
		t.Fatal(b, err)
	}
	if !killed.(*local).Compresses() {
		t.Error("it does not say that it compresses")
	}
	next := open("/bin/true")
	rotated := make(chan struct{})
	go func() { write(next); close(rotated) }()
	select {
	case <-rotated:
		t.Fatal("it rotated while another compresses")
	case <-time.After(20 * time.Millisecond): // more would prove no more
	}
	if err := os.WriteFile(gate, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	<-rotated
	if _, err := os.Stat(done); err != nil {
		t.Error("it rotated while another compresses:", err)
	}
	for _, d := range []Driver{killed, next} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if killed.(*local).Compresses() {
		t.Error("it still says that it compresses")
	}
	if _, err := os.Stat(target.Path + ".2"); err != nil {
		t.Error("the file that was to be compressed:", err)
	}
}
