package client

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSSHRunsTheVerbOverThere has a pretended ssh that gives the command to a shell, as sshd does, on a machine where shoal or
// only docker is installed.
func TestSSHRunsTheVerbOverThere(t *testing.T) {
	bin := t.TempDir()
	script := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script("ssh", `while [ "$1" != -- ]; do shift; done; shift 2; exec /bin/sh -c "$*"`)
	script("docker", `echo docker "$@"`)
	if err := os.Symlink("/bin/sh", filepath.Join(bin, "sh")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	said := func(host string) string {
		t.Helper()
		c, err := New(context.Background(), Options{Host: host, ConfigDir: t.TempDir(), Getenv: func(string) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := c.Dialer()(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		out, _ := io.ReadAll(conn)
		return strings.TrimSpace(string(out))
	}
	if got := said("ssh://me@far:22"); got != "docker system dial-stdio" {
		t.Errorf("without shoal: %q", got)
	}
	script("shoal", `echo shoal "$@"`)
	if got := said("ssh://far/run/x/shoal.sock"); got != "shoal --host unix:///run/x/shoal.sock system dial-stdio" {
		t.Errorf("with shoal: %q", got)
	}
	if _, err := New(context.Background(), Options{Host: "ssh://far/run/$(reboot)"}); err == nil || !strings.Contains(err.Error(), "characters") {
		t.Errorf("a path for the shell: %v", err)
	}
}
