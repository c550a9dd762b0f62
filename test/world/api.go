//go:build kernel

package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Answer is what the daemon said to one request.
type Answer struct {
	Code int
	Body []byte
	Err  error // the connection broke
}

// Message is the text of a refusal, or "" when the body is not Docker's error document.
func (a Answer) Message() string {
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(a.Body, &m) != nil {
		return ""
	}
	return m.Message
}

// Into decodes the body.
func (a Answer) Into(v any) error {
	if a.Err != nil {
		return a.Err
	}
	if a.Code >= 300 {
		return fmt.Errorf("status %d: %s", a.Code, a.Body)
	}
	return json.Unmarshal(a.Body, v)
}

// API sends one request without going through any command line. Body is nil, a string or []byte sent as it is, or a value
// sent as JSON.
func (w *World) API(method, path string, body any) Answer {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return Answer{Err: err}
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, "http://shoal"+path, r)
	if err != nil {
		return Answer{Err: err}
	}
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c := w.Client()
	c.Timeout = time.Minute
	resp, err := c.Do(req)
	if err != nil {
		return Answer{Err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return Answer{Code: resp.StatusCode, Body: text, Err: err}
}

// Usage is what a process holds.
type Usage struct{ Fds, Threads, RSS int }

// UsageOf reads it; RSS is in KiB. A process that is gone has nothing.
func UsageOf(pid int) (u Usage) {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	u.Fds = len(fds)
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "Threads:":
			u.Threads, _ = strconv.Atoi(f[1])
		case f[0] == "VmRSS:":
			u.RSS, _ = strconv.Atoi(f[1])
		}
	}
	return u
}

// Worked is the processor time that a process has used. A limit to it holds on a busy machine, too.
func Worked(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

var goroutineLine = regexp.MustCompile(`(?m)^goroutine \d+ `)

// Goroutines counts the daemon's goroutines from the stacks that it writes on SIGUSR1.
func (w *World) Goroutines() (n int, stacks string) {
	from := len(w.DaemonLog())
	w.daemon.Process.Signal(syscall.SIGUSR1)
	n = -1
	Await(func() bool {
		text := w.DaemonLog()[from:]
		i := strings.Index(text, "stacks of all goroutines")
		if i < 0 || !strings.HasSuffix(text, "\n") {
			return false
		}
		stacks = strings.NewReplacer(`\n`, "\n").Replace(text[i:])
		n = len(goroutineLine.FindAllString(stacks, -1))
		return true
	})
	return n, stacks
}

// Supervisors gives the supervisor's process of every container that has one.
func (w *World) Supervisors() map[string]int {
	out := map[string]int{}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(b, []byte(w.Dir+"/exec/tasks/")) {
			continue
		}
		for arg := range strings.SplitSeq(string(b), "\x00") {
			if id, ok := strings.CutPrefix(arg, w.Dir+"/exec/tasks/"); ok && len(id) == 64 {
				out[id], _ = strconv.Atoi(filepath.Base(filepath.Dir(p)))
			}
		}
	}
	return out
}

// Census is everything that containers could leave behind: what Counts counts, and the files of data root and exec root,
// network namespaces, and what the daemon holds.
type Census struct {
	Counts
	Namespaces int // bound or open by processes of this world
	Files      int
	Daemon     Usage
	Goroutines int
}

// Census counts. Files leave out what is kept on purpose to be used again (prepared writable layers).
func (w *World) Census() (c Census) {
	c.Counts = w.Count()
	for _, root := range []string{"/data", "/exec"} {
		filepath.WalkDir(w.Dir+root, func(p string, d os.DirEntry, err error) error {
			if err == nil && !strings.Contains(p, "/blank") {
				c.Files++
			}
			return nil
		})
	}
	seen := map[string]bool{}
	procs, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, p := range procs {
		if l, err := os.Readlink(p); err == nil {
			seen[l] = true
		}
	}
	c.Namespaces = len(seen)
	c.Daemon = UsageOf(w.DaemonPid())
	c.Goroutines, _ = w.Goroutines()
	return c
}
