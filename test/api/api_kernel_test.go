//go:build kernel

package api

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

var record = flag.Bool("record", false, "ask the installed dockerd, and that of DOCKER29_BIN, and write testdata/*.golden anew")

// witness is a Docker that was asked.
type witness struct {
	calls               []string // files
	golden, differences string
	version             string // of the API, where a call names none
	dir                 func() (string, error)
}

var witnesses = map[string]witness{
	"20.10": {[]string{"testdata/calls.txt"}, "testdata/docker.golden", "testdata/differences.txt", "/v1.41", func() (string, error) {
		path, err := exec.LookPath("dockerd")
		return filepath.Dir(path), err
	}},
	"29": {[]string{"testdata/calls.txt", "testdata/calls29.txt"}, "testdata/docker29.golden", "testdata/differences29.txt", "/v1.56", func() (string, error) {
		if dir := os.Getenv("DOCKER29_BIN"); dir != "" {
			return dir, nil
		}
		return "", errors.New("DOCKER29_BIN does not name the directory of a newer dockerd (scripts/docker29 makes one)")
	}},
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rootfs is an image with busybox alone, as an archive.
func rootfs(t *testing.T) []byte {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	program := []byte(read(t, path))
	for _, dir := range []string{"bin", "etc", "tmp"} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
	}
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	w.Write(program)
	for _, name := range []string{"sh", "sleep", "true", "echo", "cat", "ps", "false"} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"})
	}
	w.Close()
	return out.Bytes()
}

func oneFile() []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644, Size: 5})
	w.Write([]byte("hello"))
	w.Close()
	return out.Bytes()
}

// ask makes all calls, in order.
func ask(t *testing.T, c *http.Client, version string, calls []call) map[string]answer {
	t.Helper()
	c.Timeout = 30 * time.Second
	out := map[string]answer{}
	kept := map[string]string{}
	base := rootfs(t)
	for _, call := range calls {
		fill := strings.NewReplacer(pairs(kept)...)
		path := fill.Replace(call.path)
		if !strings.HasPrefix(path, "/v1.") {
			path = version + path
		}
		body := []byte(fill.Replace(call.body))
		kind := "application/json"
		switch call.body {
		case "@tar":
			body, kind = oneFile(), "application/x-tar"
		case "@rootfs":
			body, kind = base, "application/x-tar"
		}
		var r io.Reader
		if len(body) > 0 {
			r = bytes.NewReader(body)
		}
		req, err := http.NewRequestWithContext(t.Context(), call.method, "http://engine"+path, r)
		if err != nil {
			t.Fatal(err)
		}
		if r != nil {
			req.Header.Set("Content-Type", kind)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		if _, twice := out[call.String()]; twice {
			t.Fatalf("%s stands twice in the list", call)
		}
		out[call.String()] = answer{resp.StatusCode, shape(text)}
		if call.keep != "" {
			kept[call.keep] = keepID(text)
		}
	}
	return out
}

func pairs(m map[string]string) (out []string) {
	for k, v := range m {
		out = append(out, "{"+k+"}", v)
	}
	return out
}

// Every call is answered as Docker answers it, or stands with a reason in testdata/differences*.txt.
func TestAnswersAsDocker(t *testing.T) {
	for name, theirs := range witnesses {
		t.Run(name, theirs.compare)
	}
}

func (theirs witness) compare(t *testing.T) {
	var calls []call
	for _, name := range theirs.calls {
		more, err := parseCalls(read(t, name))
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, more...)
	}
	if *record {
		dir, err := theirs.dir()
		if err != nil {
			t.Skipf("not recorded: %v", err)
		}
		theirs.record(t, dir, calls)
	}
	docker, err := parseGolden(read(t, theirs.golden))
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseKnown(read(t, theirs.differences))
	if err != nil {
		t.Fatal(err)
	}
	w := world.New(t)
	ours := ask(t, w.Client(), theirs.version, calls)
	for _, c := range calls {
		said, recorded := docker[c.String()]
		if !recorded {
			t.Errorf("%s: Docker was not asked; run this test with -record where dockerd is installed", c)
			continue
		}
		mine := ours[c.String()]
		for _, d := range compare(said, mine) {
			found := false
			for _, k := range list {
				if k.call.MatchString(c.String()) && k.diff.MatchString(d) {
					k.used, found = true, true
				}
			}
			if !found {
				t.Errorf("%s | %s\n\tours:   %s\n\tDocker: %s", c, d, words(mine), words(said))
			}
		}
	}
	for _, k := range list {
		if !k.used {
			t.Logf("%s: this difference is gone; take the line out: %s", theirs.differences, k.line)
		}
	}
}

// words are an answer's message, for whoever reads the failure.
func words(a answer) string {
	for _, l := range a.shape {
		if text, ok := strings.CutPrefix(l, "message: "); ok {
			return fmt.Sprintf("%d %q", a.status, text)
		}
	}
	return fmt.Sprint(a.status)
}

// record asks the dockerd of a directory, which also has its containerd, where the system's is another.
func (theirs witness) record(t *testing.T, bin string, calls []call) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "sock")
	if err := os.WriteFile(dir+"/daemon.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "dockerd"), "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", "unix://"+socket,
		"--config-file", dir+"/daemon.json", "--iptables=false", "--ip-masq=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Setpgid: true}
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DOCKER_MIN_API_VERSION=1.24")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(unix.SIGTERM); cmd.Wait() }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for n := 0; ; n++ {
		resp, err := client.Get("http://engine/_ping")
		if err == nil {
			resp.Body.Close()
			break
		}
		if n > 300 {
			t.Fatalf("dockerd does not answer: %v\n%s", err, read(t, log.Name()))
		}
		time.Sleep(100 * time.Millisecond)
	}
	answers := ask(t, client, theirs.version, calls)
	var out strings.Builder
	out.WriteString("What dockerd answered to the calls of calls.txt: status, then every path and kind in the JSON.\n")
	for _, c := range calls {
		a := answers[c.String()]
		fmt.Fprintf(&out, "\n### %s\n%d\n", c, a.status)
		for _, l := range a.shape {
			out.WriteString(l + "\n")
		}
	}
	if err := os.WriteFile(theirs.golden, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
