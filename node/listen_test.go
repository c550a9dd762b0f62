package node

import (
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/node/config"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func TestListenUnixTakesAStaleSocketButNotALivingOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	l, err := listenUnix(path, "shoal", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, _ := os.Stat(path); st.Mode().Perm()&0o007 != 0 {
		t.Errorf("the socket is open to all: %v", st.Mode())
	}
	if _, err := listenUnix(path, "shoal", quiet); !errs.Is(err, errs.Conflict) {
		t.Errorf("second daemon on the same socket: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	for host, want := range map[string]string{"nonsense": "unix://", "npipe://x": "npipe is not offered", "fd://": "socket activation"} {
		if _, err := listen(config.API{Hosts: []string{host}}, quiet); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := listen(config.API{Hosts: []string{"unix://" + t.TempDir() + "/x"}, Group: "no-such-group-here"}, quiet); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown group: %v", err)
	}
}

func TestPidfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "pid")
	if err := claimPidfile(path); err != nil {
		t.Fatal(err)
	}
	if err := claimPidfile(path); err != nil {
		t.Fatalf("own pid file: %v", err)
	}
	os.WriteFile(path, []byte("1\n"), 0o644) // lives, but is no shoald
	if err := claimPidfile(path); err != nil {
		t.Fatalf("pid file of a process that is no daemon: %v", err)
	}
}
