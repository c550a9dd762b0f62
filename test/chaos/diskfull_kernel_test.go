//go:build kernel

package chaos

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// smallDisk puts the data root on a disk of its own and gives a function that fills it up and one that frees it.
func smallDisk(t *testing.T, w *world.World, size string) (fill, free func()) {
	dir := filepath.Join(w.Dir, "data")
	w.StopDaemon()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the world's end, which starts a daemon without this disk
		if ids := strings.Fields(w.Shoal("ps", "-aq").Out); len(ids) > 0 {
			w.Shoal(append([]string{"rm", "-f", "-v"}, ids...)...)
		}
		w.StopDaemon()
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("the data root is still in use: %v", err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	w.StartDaemon()
	filler := filepath.Join(dir, "filler")
	return func() {
			f, err := os.Create(filler)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for _, n := range []int{1 << 20, 4096, 512, 1} {
				for err == nil {
					_, err = f.Write(make([]byte, n))
				}
				if !errors.Is(err, unix.ENOSPC) {
					t.Fatal(err)
				}
				err = nil
			}
		}, func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		}
}

func tarOf(name string, size int) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)})
	tw.Write(make([]byte, size))
	tw.Close()
	return b.Bytes()
}

// A full disk is named in what the user sees, harms nothing, and leaves nothing half-made.
func TestDiskFull(t *testing.T) {
	w := world.New(t)
	fill, free := smallDisk(t, w, "96m")
	w.Must(w.Shoal("run", "-d", "--name", "runs", "toolbox", "sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done"))
	w.Must(w.Shoal("run", "--name", "ends", "toolbox", "sh", "-c", "echo kept; head -c 100000 /dev/urandom > /file"))
	w.Must(w.Shoal("create", "--name", "made", "toolbox", "echo", "started"))
	archive := filepath.Join(w.Dir, "toolbox.tar")
	w.Must(w.Shoal("commit", "ends", "saved:1"))
	w.Must(w.Shoal("save", "-o", archive, "saved:1"))
	w.Must(w.Shoal("rmi", "saved:1"))
	big := filepath.Join(w.Dir, "big")
	os.WriteFile(big, make([]byte, 1<<20), 0o600)
	os.WriteFile(big+".tar", tarOf("x", 1<<20), 0o600)
	before := w.Must(w.Shoal("ps", "-a", "--format", "{{.Names}}"))
	images := w.Must(w.Shoal("images", "-q"))
	for round := range 2 {
		fill()
		for name, args := range map[string][]string{
			"create": {"create", "--name", "new", "toolbox"},
			"run":    {"run", "--name", "new", "toolbox", "true"},
			"commit": {"commit", "ends", "new:1"},
			"load":   {"load", "-i", archive},
			"import": {"import", big + ".tar", "new:1"},
			"cp":     {"cp", big, "ends:/big"},
			"volume": {"volume", "create", "new"},
			"net":    {"network", "create", "new"},
		} {
			r := w.Shoal(args...)
			if r.Code == 0 && (name == "net" || name == "volume" || name == "create") { // so small that there may be room
				w.Must(w.Shoal(map[string][]string{"net": {"network", "rm", "new"}, "volume": {"volume", "rm", "new"}, "create": {"rm", "new"}}[name]...))
				continue
			}
			if r.Code == 0 || !strings.Contains(strings.ToLower(r.Err), "no space left") {
				t.Errorf("%s on a full disk: %d %s%s", name, r.Code, r.Out, r.Err)
			}
		}
		want(t, "the log is readable", w.Must(w.Shoal("logs", "ends")), "kept")
		want(t, "what ran runs", w.Must(w.Shoal("exec", "runs", "echo", "here")), "here")
		w.Must(w.Shoal("inspect", "made"))
		w.Must(w.Shoal("kill", "runs"))
		w.Must(w.Shoal("wait", "runs"))
		want(t, "an end is known", w.Must(w.Shoal("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "runs")), "exited 137")
		w.KillDaemon()
		if err := w.TryStartDaemon(); err != nil {
			t.Fatalf("round %d: the daemon does not start on a full disk: %v", round, err)
		}
		want(t, "containers", w.Must(w.Shoal("ps", "-a", "--format", "{{.Names}}")), before)
		want(t, "the end after a restart", w.Must(w.Shoal("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "runs")), "exited 137")
		free()
		want(t, "images", w.Must(w.Shoal("images", "-q")), images)
		want(t, "run with space again", w.Must(w.Shoal("run", "--rm", "--name", "new", "toolbox", "echo", "fine")), "fine")
		wantIn(t, "load with space again", w.Must(w.Shoal("load", "-i", archive)), "saved:1")
		w.Must(w.Shoal("rmi", "saved:1"))
		w.Must(w.Shoal("start", "runs"))
		w.Must(w.Shoal("start", "made"))
	}
	w.Must(w.Shoal("rm", "-f", "runs"))
	// Removal works on a full disk: it is how space is made.
	fill()
	w.Must(w.Shoal("rm", "-f", "ends", "made"))
	free()
}

// Images and build cache can be removed when a build has filled the disk to the last byte: their records are databases, which
// write to forget, and for that there is a reserve.
func TestDiskFullOfABuild(t *testing.T) {
	w := world.New(t)
	fill, _ := smallDisk(t, w, "96m")
	within(t, "the reserve is there", func() bool {
		st, err := os.Stat(filepath.Join(w.Dir, "data/reserve"))
		return err == nil && st.Size() > 0
	})
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
	w.Must(w.Shoal("run", "--rm", "hello"))
	context := filepath.Join(w.Dir, "context")
	os.Mkdir(context, 0o700)
	os.WriteFile(filepath.Join(context, "Dockerfile"), []byte("FROM toolbox\nRUN dd if=/dev/zero of=/blob bs=1M count=150\n"), 0o600)
	if r := w.Shoal("build", "-q", context); r.Code == 0 {
		t.Errorf("150 MB were built on a disk of 96: %+v", r)
	}
	fill()
	wantIn(t, "rmi on a full disk", w.Must(w.Shoal("rmi", "hello")), "hello:latest")
	fill()
	w.Must(w.Shoal("image", "prune", "-af"))
	w.Must(w.Shoal("builder", "prune", "-af"))
	fill()
	w.Must(w.Shoal("system", "prune", "-af"))
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func wantIn(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s: %q is not in\n%s", what, p, got)
		}
	}
}

// damages are the ways in which files come back from a dying disk.
var damages = map[string]func(path string) error{
	"empty":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
	"truncated": func(p string) error { st, err := os.Stat(p); return errors.Join(err, os.Truncate(p, st.Size()/2)) },
	"garbage":   func(p string) error { return os.WriteFile(p, []byte("\x00\xff{{{not json\n\n"), 0o600) },
	"zeros": func(p string) error {
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		return os.WriteFile(p, make([]byte, st.Size()), 0o600)
	},
	"a directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	"gone":        os.Remove,
}

// TestDamagedRecords: one file is damaged; the daemon starts, says which, and everything else works.
func TestDamagedRecords(t *testing.T) {
	for _, name := range []string{"container.json", "state.json", "exit.json", "volume", "network", "instance.json", "metadata.db"} {
		for how, damage := range damages {
			if name == "exit.json" && how == "a directory" {
				continue // on tmpfs, which no disk damages
			}
			t.Run(name+"/"+how, func(t *testing.T) { tryDamage(t, name, how, damage) })
		}
	}
}

func tryDamage(t *testing.T, name, how string, damage func(string) error) {
	w := world.New(t)
	w.Must(w.Shoal("volume", "create", "vol"))
	w.Must(w.Shoal("network", "create", "net"))
	w.Must(w.Shoal("run", "-d", "--name", "other", "--network", "net", "toolbox", "sleep", "1000"))
	w.Must(w.Shoal("run", "-d", "--name", "hurt", "-v", "vol:/v", "--network", "net", "toolbox", "sh", "-c", "sleep 0.3; exit 5"))
	v, _ := inspect(w, "hurt")
	if name != "exit.json" {
		w.Must(w.Shoal("wait", "hurt"))
	}
	w.KillDaemon()
	data := filepath.Join(w.Dir, "data")
	pattern := map[string]string{
		"container.json": data + "/containers/" + v.ID + "/container.json", "state.json": data + "/containers/" + v.ID + "/state.json",
		"exit.json": w.Dir + "/exec/tasks/" + v.ID + "/exit.json", "volume": data + "/volumes/vol/*.json", "network": data + "/networks/networks/*.json",
		"instance.json": data + "/networks/instance.json", "metadata.db": data + "/image/metadata.db",
	}[name]
	var files []string
	within(t, "the file is there: "+pattern, func() bool { files, _ = filepath.Glob(pattern); return len(files) > 0 })
	for _, f := range files[:1] {
		if err := damage(f); err != nil {
			t.Fatal(err)
		}
	}
	from := len(w.DaemonLog())
	if err := w.TryStartDaemon(); err != nil {
		t.Errorf("the daemon does not start: %.600s", err)
		os.RemoveAll(data)
		return
	}
	h, code := inspect(w, "hurt")
	o, _ := inspect(w, "other")
	want(t, "the other container", o.State.Status, "running")
	if r := w.Shoal("run", "--rm", "toolbox", "echo", "works"); r.Out != "works\n" {
		t.Errorf("a new container: %+v", r)
	}
	if r := w.Shoal("exec", "other", "echo", "fine"); r.Out != "fine\n" {
		t.Errorf("exec in the other: %+v", r)
	}
	if r := w.Shoal("run", "--rm", "--network", "net", "-v", "vol:/v", "toolbox", "echo", "works"); r.Code != 0 && name != "network" && name != "volume" {
		t.Errorf("a new container with network and volume: %+v", r)
	}
	if name == "exit.json" && (code != 200 || h.State.Status != "exited" || h.State.ExitCode == 0) {
		t.Errorf("the container whose exit status is damaged: %d %+v", code, h.State)
	}
	if r := w.Shoal("rm", "-f", "hurt"); r.Code != 0 && name != "container.json" && name != "state.json" {
		t.Errorf("remove it: %+v", r)
	}
	if r := w.Shoal("run", "--rm", "--name", "hurt", "toolbox", "true"); r.Code != 0 {
		t.Errorf("its name is not free: %+v", r)
	}
	log := w.DaemonLog()[from:] // at the end: the images are looked at when they are first needed
	if how != "gone" && h.State.Error == "" && !strings.Contains(log, filepath.Base(files[0])) && !strings.Contains(log, v.ID) {
		t.Errorf("the log does not name what is damaged: %s", log)
	}
}
