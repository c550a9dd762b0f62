package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
)

// pretendRun makes the engine answer attach, wait and start as for a container that prints, reads all its input if it
// has any, and ends with a code.
type pretendRun struct {
	code       int
	startError string
	stdin      chan string
	ended      chan struct{}
}

func (p *pretendRun) serve(w http.ResponseWriter, req *http.Request, path string) bool {
	switch {
	case strings.HasSuffix(path, "/attach"):
		p.attach(w, req)
	case strings.HasSuffix(path, "/wait"):
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		select {
		case <-p.ended:
			fmt.Fprintf(w, `{"StatusCode":%d}`, p.code)
		case <-req.Context().Done():
		}
	case strings.HasSuffix(path, "/start") && p.startError != "":
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"message":%q}`, p.startError)
		close(p.ended)
	default:
		return false
	}
	return true
}

func (p *pretendRun) attach(w http.ResponseWriter, req *http.Request) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	if p.startError != "" {
		_, _ = io.Copy(io.Discard, rw)
		return
	}
	frame(conn, stdcopy.Stdout, "hello out\n")
	frame(conn, stdcopy.Stderr, "hello err\n")
	if req.URL.Query().Get("stdin") == "1" {
		in, _ := io.ReadAll(bufio.NewReader(rw))
		p.stdin <- string(in)
		frame(conn, stdcopy.Stdout, "read "+string(in))
	}
	close(p.ended)
}

func frame(w io.Writer, stream stdcopy.StdType, s string) {
	_, _ = w.Write(append([]byte{byte(stream), 0, 0, 0, 0, 0, byte(len(s) >> 8), byte(len(s))}, s...))
}

func TestRunAttached(t *testing.T) {
	for _, tt := range []struct {
		name       string
		args       string
		stdin      string
		code       int
		startError string
		want       int
		out, err   string
	}{
		{name: "output is split and the code passed on", args: "run img", code: 7, want: 7, out: "hello out\n", err: "hello err\n"},
		{name: "stdin until its end", args: "run -i --rm img", stdin: "typed", out: "hello out\nread typed", err: "hello err\n"},
		{name: "program not found", args: "run --rm img nosuch", startError: `exec: "nosuch": executable file not found in $PATH`, want: 127,
			err: "shoal: Error response from daemon: exec: \"nosuch\": executable file not found in $PATH\n"},
		{name: "program not executable", args: "run img /etc", startError: "exec: /etc: permission denied", want: 126,
			err: "shoal: Error response from daemon: exec: /etc: permission denied\n"},
		{name: "engine refuses", args: "run img", startError: "no", want: 125,
			err: "shoal: Error response from daemon: no\n\nRun 'shoal run --help' for more information\n"},
		{name: "terminal without a terminal", args: "run -it img", want: 125,
			err: "shoal: cannot attach stdin to a TTY-enabled container because stdin is not a terminal; leave out -t, or run from a terminal\n\nRun 'shoal run --help' for more information\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &pretendRun{code: tt.code, startError: tt.startError, stdin: make(chan string, 1), ended: make(chan struct{})}
			r := newRecorder(t, p.serve)
			t.Setenv("SHOAL_HOST", r.host)
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			var out, errb bytes.Buffer
			code := Main(words(tt.args), Streams{In: strings.NewReader(tt.stdin), Out: &out, Err: &errb})
			if code != tt.want || out.String() != tt.out || errb.String() != tt.err {
				t.Errorf("code %d, want %d\nout %q\nwant %q\nerr %q\nwant %q", code, tt.want, out.String(), tt.out, errb.String(), tt.err)
			}
		})
	}
}

func TestDidYouMean(t *testing.T) {
	for name, want := range map[string]string{"pss": "'ps'", "rn": "'run' or 'rm'", "imges": "'images'", "stpo": "'stop'", "bogusverb": "", "contaner": "'container'", "exce": "'exec'"} {
		got := strings.Join(nearest(name, verbs()), " or ")
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestCommandWords(t *testing.T) {
	for line, want := range map[string]string{
		"-H unix:///x ps -a":       "ps",
		"--host=unix:///x -D ps":   "ps",
		"container ls -a x":        "container ls",
		"-c ctx image --help":      "image",
		"run -it img sh":           "run img",
		"__complete run --net":     "__complete",
		"--config /x -- ps":        "",
		"-l debug network inspect": "network inspect",
	} {
		if got := strings.Join(commandWords(words(line)), " "); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestEveryCommandBuilds finds flags that are declared twice and commands without words, which only show when used.
func TestEveryCommandBuilds(t *testing.T) {
	var walk func(list []verb, above string)
	walk = func(list []verb, above string) {
		for _, v := range list {
			if v.short == "" {
				t.Errorf("%s%s says nothing of itself", above, v.name)
			}
			if v.group != nil {
				walk(v.group, v.name+" ")
				continue
			}
			var out bytes.Buffer
			if code := Main(words(above+v.name+" --help"), Streams{Out: &out, Err: &out}); code != 0 {
				t.Errorf("%s%s --help: code %d: %s", above, v.name, code, out.String())
			}
			if use := "Usage:  shoal " + above + v.name; !strings.HasPrefix(out.String(), use) {
				t.Errorf("%s%s: help begins %.60q, want %q", above, v.name, out.String(), use)
			}
			if strings.Contains(out.String(), "help for ") {
				t.Errorf("%s%s: the library's words for --help", above, v.name)
			}
		}
	}
	walk(append(verbs(), verb{name: "doctor", short: "has a verb of its own", group: []verb{{name: "bundle", short: "of doctor"}}}), "")
}
