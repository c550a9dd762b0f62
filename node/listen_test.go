package node

import (
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
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

func TestListenUnixKeepsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, "", quiet); !errs.Is(err, errs.Conflict) {
		t.Errorf("a file at the socket's place: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "data" {
		t.Errorf("the file is %q now", b)
	}
	link := path + ".sock"
	if err := os.Symlink("/nowhere/shoal.sock", link); err != nil {
		t.Fatal(err)
	}
	l, err := listenUnix(link, "", quiet)
	if err != nil {
		t.Fatalf("a link of former times: %v", err)
	}
	l.Close()
}

func nothing(string) error { return nil }

func TestClaim(t *testing.T) {
	dir := t.TempDir()
	d := config.Daemon{Pidfile: dir + "/run/pid", DataRoot: dir + "/data", ExecRoot: dir + "/exec"}
	release, err := claim(d, nothing)
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := os.ReadFile(d.Pidfile)
	if strings.TrimSpace(string(pid)) != strconv.Itoa(os.Getpid()) {
		t.Errorf("the pid file holds %q", pid)
	}
	for what, second := range map[string]config.Daemon{
		"pid file":  {Pidfile: d.Pidfile, DataRoot: dir + "/d2", ExecRoot: dir + "/e2"},
		"data root": {Pidfile: dir + "/p2", DataRoot: d.DataRoot, ExecRoot: dir + "/e2"},
		"exec root": {Pidfile: dir + "/p2", DataRoot: dir + "/d2", ExecRoot: d.ExecRoot},
	} {
		if _, err := claim(second, nothing); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
			t.Errorf("same %s: %v", what, err)
		}
	}
	release()
	if release, err = claim(d, nothing); err != nil {
		t.Fatalf("after the release: %v", err)
	}
	release()
}
