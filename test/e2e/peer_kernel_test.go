//go:build kernel

package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalhq/shoal/network/kernel"
)

// peer is a machine that serves files: a small Debian at a path, whose programs run in the network namespace of the machine
// outside. The virtual machine of test/vm has one.
type peer struct {
	w    *netWorld
	root string
}

func newPeer(t *testing.T, w *netWorld) *peer {
	t.Helper()
	p := &peer{w, os.Getenv("SHOAL_PEER")}
	if _, err := os.Stat(filepath.Join(p.root, "usr/sbin/smbd")); p.root == "" || err != nil {
		t.Skip("no machine that serves files; `make vm ARGS=-peer` runs this in a virtual machine that has one")
	}
	return p
}

// command runs a shell script with the peer's root, in its network namespace and a mount namespace of its own.
func (p *peer) command(script string) *exec.Cmd {
	c := exec.Command("/bin/sh", "-euc", "mount -t proc proc /proc\n"+script)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: p.root, Unshareflags: syscall.CLONE_NEWNS, Setsid: true}
	return c
}

// run runs a script to its end.
func (p *peer) run(t *testing.T, script string) string {
	t.Helper()
	var out strings.Builder
	c := p.command(script)
	c.Stdout, c.Stderr = &out, &out
	if err := kernel.In(p.w.outside, c.Start); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("on the peer: %v: %s", err, out.String())
	}
	return out.String()
}

// serve runs a script that ends with a server in the foreground; it is ready when it has printed "ready" or what sign says.
func (p *peer) serve(t *testing.T, sign, script string) {
	t.Helper()
	c := p.command(script)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = in, in
	if err := kernel.In(p.w.outside, c.Start); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
		out.Close()
	})
	ready := make(chan string)
	go func() {
		var said strings.Builder
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if ready != nil && strings.Contains(lines.Text(), sign) {
				ready <- ""
				ready = nil
			}
		}
		if ready != nil {
			ready <- said.String()
		}
	}()
	select {
	case said := <-ready:
		if said != "" {
			t.Fatalf("the peer's server ended: %s", said)
		}
	case <-time.After(time.Minute):
		t.Fatal("the peer's server is not ready after a minute")
	}
}
