//go:build kernel

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// Images and containers that want a volume where none may be, or out of its place.
func TestVolumeHostileImages(t *testing.T) {
	w := world.New(t)
	outside := t.TempDir()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for name, to := range map[string]string{"link": "/proc", "out": "../../../../../../../.." + outside, "self": "self", "data/etc": "/etc"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}); err != nil {
			t.Fatal(err)
		}
	}
	tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644})
	w.Must(w.Docker("create", "--name", "base", "toolbox"))
	base := filepath.Join(w.Dir, "base.tar")
	w.Must(w.Docker("export", "-o", base, "base"))
	rest, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	tw.Flush()
	all := filepath.Join(w.Dir, "all.tar")
	if err := os.WriteFile(all, append(b.Bytes(), rest...), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ volume, says, out string }{
		{"/proc", "cannot be mounted on /proc", ""},
		{"/proc/1", "inside a procfs", ""},
		{"/link", "inside a procfs", ""},
		{"/link/self", "inside a procfs", ""},
		{"/", "destination can't be '/'", ""},
		{"rel", "must be absolute", ""},
		{"/self/x", "", ""}, // a loop of links
		{"/out/x", "", "inside"},
		{"/file", "", ""},
		{"/a/../data", "", "inside"},
	} {
		image := fmt.Sprintf("hostile:%d", i)
		w.Must(w.Docker("import", "-c", `VOLUME ["`+c.volume+`"]`, all, image))
		r := w.Docker("run", "--rm", "--network", "none", image, "sh", "-c", "echo x > "+filepath.Clean(c.volume)+"/made && echo inside")
		if c.says != "" && (r.Code == 0 || !strings.Contains(r.Err, c.says)) || strings.TrimSpace(r.Out) != c.out {
			t.Errorf("VOLUME %s: want %q%q: %+v", c.volume, c.says, c.out, r)
		}
	}
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Error("it got out:", list)
	}
	for _, args := range []string{"-v x1:/proc", "--tmpfs /proc", "--mount type=tmpfs,dst=/proc", "-v " + outside + ":/proc", "-v x1:/proc/../proc/", "--tmpfs /x:bogus=1"} {
		r := w.Docker(append(append([]string{"create"}, strings.Fields(args)...), "toolbox")...)
		if r.Code == 0 || !strings.Contains(r.Err, "/proc") && !strings.Contains(r.Err, "bogus") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	want(t, "the host's /proc", w.Must(w.Docker("run", "--rm", "--network", "none", "-v", "/proc:/proc", "toolbox", "sh", "-c", "test -e /proc/1/comm && echo there")), "there")
	w.Must(w.Docker("volume", "prune", "-af"))
	w.Must(w.Docker("rm", "base"))
	if left := w.Must(w.Docker("volume", "ls", "-q")); left != "" {
		t.Errorf("left: %s", left)
	}
}

// Many begin to use one volume at once, and somebody removes it again and again: the image's content is copied once, and
// nobody runs with a volume that is not there.
func TestVolumeRaces(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "--rm", "--network", "none", "toolbox", "true"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := w.Docker("run", "--rm", "--network", "none", "-v", "shared:/etc", "toolbox", "sh", "-c", "ls /etc | sort | cksum; echo mine > /etc/passwd."+fmt.Sprint(i))
			if r.Code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	if n := w.Must(w.Docker("run", "--rm", "-v", "shared:/s", "toolbox", "sh", "-c", "ls /s/passwd.* | wc -l; cd /s; ls passwd")); n != "8\npasswd" {
		t.Errorf("what the containers wrote is lost: %s", n)
	}
	stop := make(chan struct{})
	var remover sync.WaitGroup
	remover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				w.Docker("volume", "rm", "-f", "often")
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for range 5 {
				if r := w.Docker("run", "--rm", "--network", "none", "-v", "often:/etc", "toolbox", "cat", "/etc/passwd"); r.Code != 0 || !strings.Contains(r.Out, "root") {
					t.Errorf("%+v", r)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	remover.Wait()
	w.Docker("volume", "rm", "-f", "often")
	want(t, "volumes", w.Must(w.Docker("volume", "ls", "-q")), "shared")
}
