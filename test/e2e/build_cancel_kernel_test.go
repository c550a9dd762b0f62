//go:build kernel

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// TestBuildAfterCancelled: a build that is cancelled at any moment, however early, is in nobody's way: the same build right
// after it runs at once. Clients of both kinds are cancelled: of the classic endpoint, and with a session.
func TestBuildAfterCancelled(t *testing.T) {
	w := world.New(t)
	archive := func(round int) []byte {
		return world.Archive(map[string]string{"Dockerfile": fmt.Sprintf("FROM toolbox\nCOPY f /f\nRUN echo %d > /r\n", round), "f": fmt.Sprint(round)})
	}
	if r := w.Build("", archive(-1)); !strings.Contains(string(r.Body), "Successfully built") {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
	for round := range 13 {
		wait := time.Duration(round) * 4 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://shoal/build?t=cancelled", bytes.NewReader(archive(round)))
		if resp, err := w.Client().Do(req); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		cancel()
		promptly(t, w, fmt.Sprintf("after a classic build cancelled at %v", wait), func() string {
			return string(w.Build("t=after", archive(round)).Body)
		}, "Successfully tagged after:latest")
	}
	dir := write(t, t.TempDir(), map[string]string{"f": "x"})
	for round := range 6 {
		wait := time.Duration(round) * 25 * time.Millisecond
		write(t, dir, map[string]string{"Dockerfile": fmt.Sprintf("FROM toolbox\nCOPY f /f\nRUN echo s%d > /r\n", round)})
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		c := w.Command(world.Bin(t, "shoal"), "build", "-q", dir)
		interrupt(ctx, c)
		cancel()
		promptly(t, w, fmt.Sprintf("after a build with a session cancelled at %v", wait), func() string {
			r := w.Shoal("build", "-q", dir)
			return r.Out + r.Err
		}, "sha256:")
	}
}

// interrupt runs a command and kills it when ctx ends.
func interrupt(ctx context.Context, c *exec.Cmd) {
	if c.Start() != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { c.Process.Kill() })()
	c.Wait()
}

// promptly fails the test with the daemon's stacks when f takes long or does not say what is wanted.
func promptly(t *testing.T, w *world.World, when string, f func() string, want string) {
	t.Helper()
	said := make(chan string, 1)
	begun := time.Now()
	go func() { said <- f() }()
	select {
	case got := <-said:
		if !strings.Contains(got, want) {
			t.Fatalf("%s: want %q in %s", when, want, got)
		}
		t.Logf("%s: %v", when, time.Since(begun))
	case <-time.After(time.Minute):
		_, stacks := w.Goroutines()
		t.Fatalf("%s: no end after a minute; the daemon's stacks:\n%s", when, stacks)
	}
}

// TestBuildTerminal: on a terminal the progress is drawn, and Ctrl-C ends the build, the step with it.
func TestBuildTerminal(t *testing.T) {
	w := world.New(t)
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM toolbox\nRUN echo drawn\n"})
	x := w.Term(t, world.Bin(t, "shoal"), "build", "-t", "drawn", dir)
	x.Expect("[+] Building")
	x.Expect("FINISHED")
	if code := x.Code(); code != 0 || !strings.Contains(x.Text(), "\x1b[") || !strings.Contains(x.Text(), "=> [2/2] RUN echo drawn") {
		t.Errorf("exit code %d: %q", code, x.Text())
	}
	before := w.Count()
	write(t, dir, map[string]string{"Dockerfile": "FROM toolbox\nRUN echo begun; sleep 1000\n"})
	y := w.Term(t, world.Bin(t, "shoal"), "build", dir)
	y.Expect("begun")
	y.Type("\x03")
	if code := y.Code(); code != 130 || !strings.Contains(y.Text(), "cancelled") {
		t.Errorf("after Ctrl-C: exit code %d: %q", code, y.Text())
	}
	same(t, w, before)
}
