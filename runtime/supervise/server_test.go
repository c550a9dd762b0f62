package supervise

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/runtime/spec"
)

// Whoever has read the first line of an events connection gets every event from then on.
func TestNoEventIsMissed(t *testing.T) {
	for range 200 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		own, peer := os.NewFile(uintptr(fds[0]), "events"), os.NewFile(uintptr(fds[1]), "peer")
		var e subscribers
		lines := make(chan string, 2)
		go func() {
			defer close(lines)
			r := bufio.NewReader(peer)
			for range 2 {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				lines <- line
				e.send(spec.Event{Kind: "exec-exit", ExecID: "one"})
			}
		}()
		e.add(own, encodeLine(spec.StartReport{Step: "running"}))
		first, second := <-lines, <-lines
		if !strings.Contains(first, "running") || !strings.Contains(second, "exec-exit") {
			t.Fatalf("%q, then %q", first, second)
		}
		peer.Close()
		e.close()
	}
}
