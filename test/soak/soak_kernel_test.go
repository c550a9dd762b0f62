//go:build kernel

package soak

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

var (
	livesFlag = flag.Int("lives", 200, "container lives of the soak (100000 for the long form)")
	execsFlag = flag.Int("execs", 1000, "execs on one container (10000 for the long form)")
	loadsFlag = flag.Int("loads", 20, "image loads and removals (1000 for the long form)")
)

type object = map[string]any

// call fails the test unless the status is as wanted.
func call(t *testing.T, w *world.World, method, path string, body any, code int) world.Answer {
	t.Helper()
	a := w.API(method, path, body)
	if a.Code != code {
		t.Errorf("%s %s: %d, want %d: %s %v", method, path, a.Code, code, a.Body, a.Err)
	}
	return a
}

// kinds are containers with everything that could leave something behind.
func kinds(w *world.World) []object {
	bind := filepath.Join(w.Dir, "bind")
	os.MkdirAll(bind, 0o755)
	host := func(h object, cmd ...string) object {
		if cmd == nil {
			cmd = []string{"true"}
		}
		return object{"Image": "toolbox", "Cmd": cmd, "HostConfig": h}
	}
	return []object{
		host(object{}),
		host(object{"NetworkMode": "none"}),
		host(object{"NetworkMode": "host"}),
		host(object{"NetworkMode": "container:shared"}),
		host(object{"NetworkMode": "soak"}, "sh", "-c", "echo x > /file; exit 3"),
		host(object{"PortBindings": object{"80/tcp": []object{{"HostPort": ""}}, "53/udp": []object{{"HostPort": ""}}}}),
		host(object{"Binds": []string{bind + ":/b", "soak:/v", "/anonymous"}, "Tmpfs": object{"/t": ""}, "ReadonlyRootfs": true}),
		host(object{"Init": true, "PidMode": "host", "IpcMode": "shareable", "ShmSize": 1 << 20}),
		host(object{"Memory": 64 << 20, "PidsLimit": 50, "NanoCpus": 500000000, "CapAdd": []string{"NET_ADMIN"}, "Privileged": false}),
		host(object{"Privileged": true, "CgroupnsMode": "private"}),
		host(object{"LogConfig": object{"Type": "json-file", "Config": object{"max-size": "10k", "max-file": "2"}}}, "sh", "-c", "head -c 50000 /dev/urandom | od"),
		host(object{"LogConfig": object{"Type": "none"}}, "sleep", "1000"),
		{"Image": "toolbox", "Cmd": []string{"sleep", "1000"}, "Tty": true, "OpenStdin": true},
		{"Image": "toolbox", "Cmd": []string{"sleep", "1000"}, "Healthcheck": object{"Test": []string{"CMD", "true"}, "Interval": 20000000, "StartInterval": 10000000}},
		{"Image": "toolbox", "Cmd": []string{"no-such-program"}},
	}
}

// live is one life: create, start, exec, stop, remove, with what the container is.
func live(t *testing.T, w *world.World, name string, body object) {
	if a := w.API("POST", "/containers/create?name="+name, body); a.Code != 201 {
		t.Errorf("create %v: %d %s %v", body, a.Code, a.Body, a.Err)
		return
	}
	cmd := body["Cmd"].([]string)
	bad := cmd[0] == "no-such-program"
	if a := w.API("POST", "/containers/"+name+"/start", nil); (a.Code == 204) == bad {
		t.Errorf("start %v: %d %s %v", body, a.Code, a.Body, a.Err)
	}
	if cmd[0] == "sleep" {
		exec(t, w, name)
		call(t, w, "POST", "/containers/"+name+"/pause", nil, 204)
		call(t, w, "POST", "/containers/"+name+"/unpause", nil, 204)
		call(t, w, "POST", "/containers/"+name+"/kill", nil, 204)
	}
	if !bad {
		call(t, w, "POST", "/containers/"+name+"/wait", nil, 200)
	}
	call(t, w, "DELETE", "/containers/"+name+"?v=1&force=1", nil, 204)
}

func exec(t *testing.T, w *world.World, name string) {
	t.Helper()
	var made struct {
		ID string `json:"Id"`
	}
	if err := w.API("POST", "/containers/"+name+"/exec", object{"Cmd": []string{"true"}, "AttachStdout": true}).Into(&made); err != nil {
		t.Error("exec:", err)
		return
	}
	call(t, w, "POST", "/exec/"+made.ID+"/start", object{}, 200)
}

// threadSlack is what the daemon may have more threads than before: Go keeps one for every system call that once blocked
// beside the others. A leak would keep one for each of the hundreds of operations that every test does.
const threadSlack = 64

// settled waits until a count is as before.
func settled(t *testing.T, what string, before world.Census, now func() world.Census) {
	t.Helper()
	var c world.Census
	if world.Await(func() bool {
		c = now()
		return c.Counts == before.Counts && c.Files <= before.Files+2 && c.Daemon.Fds <= before.Daemon.Fds+3 && c.Goroutines >= 0 &&
			c.Goroutines <= before.Goroutines+3 && c.Daemon.Threads <= before.Daemon.Threads+threadSlack && c.Daemon.RSS <= before.Daemon.RSS+16<<10
	}) {
		t.Logf("%s: %+v", what, c)
		return
	}
	t.Errorf("%s: something grew or was left:\nnow    %+v\nbefore %+v", what, c, before)
	if c.Goroutines > before.Goroutines+3 {
		_, stacks := w0.Goroutines()
		t.Log(stacks)
	}
}

var w0 *world.World

// TestLives: many lives of all kinds, some at the same time, leave nothing.
func TestLives(t *testing.T) {
	w := world.New(t)
	w0 = w
	w.Must(w.Shoal("network", "create", "soak"))
	w.Must(w.Shoal("volume", "create", "soak"))
	w.Must(w.Shoal("run", "-d", "--name", "shared", "toolbox", "sleep", "100000"))
	all := kinds(w)
	for i := range 2 * len(all) { // caches fill, pools grow
		live(t, w, fmt.Sprintf("warm%d", i), all[i%len(all)])
	}
	crowd(t, w, all, 40)
	time.Sleep(200 * time.Millisecond) // what ends in the background has ended
	before := w.Census()
	began := time.Now()
	crowd(t, w, all, *livesFlag)
	t.Logf("%d lives in %v", *livesFlag, time.Since(began).Round(time.Millisecond))
	settled(t, "lives", before, w.Census)
	w.Must(w.Shoal("rm", "-f", "shared"))
	w.Must(w.Shoal("network", "rm", "soak"))
	w.Must(w.Shoal("volume", "rm", "soak"))
}

func crowd(t *testing.T, w *world.World, all []object, n int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n && !t.Failed(); i = int(next.Add(1)) {
				live(t, w, fmt.Sprintf("life%d", i), all[i%len(all)])
			}
		})
	}
	wg.Wait()
}

// TestParallelStarts: 200 starts at once.
func TestParallelStarts(t *testing.T) {
	w := world.New(t)
	w0 = w
	body := object{"Image": "toolbox", "Cmd": []string{"sleep", "1000"}}
	live(t, w, "warm", body)
	before := w.Census()
	for round := range 2 {
		var wg sync.WaitGroup
		began := time.Now()
		for i := range 200 {
			wg.Go(func() {
				name := fmt.Sprintf("par%d", i)
				call(t, w, "POST", "/containers/create?name="+name, body, 201)
				call(t, w, "POST", "/containers/"+name+"/start", nil, 204)
			})
		}
		wg.Wait()
		t.Logf("200 starts in %v", time.Since(began).Round(time.Millisecond))
		addresses := map[string]bool{}
		for _, a := range strings.Fields(w.Must(w.Shoal("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "par0", "par1", "par2"))) {
			addresses[a] = true
		}
		if len(addresses) != 3 {
			t.Errorf("addresses: %v", addresses)
		}
		began = time.Now()
		for i := range 200 {
			wg.Go(func() { call(t, w, "DELETE", fmt.Sprintf("/containers/par%d?force=1", i), nil, 204) })
		}
		wg.Wait()
		t.Logf("200 removals in %v", time.Since(began).Round(time.Millisecond))
		if round == 0 { // the first crowd sizes pools and the heap
			time.Sleep(200 * time.Millisecond)
			after := w.Census()
			before.Daemon, before.Files = after.Daemon, max(before.Files, after.Files)
			before.Daemon.Threads = max(after.Daemon.Threads, 150) // how many were blocked at once is chance; Go ends no thread
		}
	}
	settled(t, "parallel starts", before, w.Census)
}

// TestExecStorm: execs on one container, many at once, leave nothing in the supervisor and in the daemon.
func TestExecStorm(t *testing.T) {
	w := world.New(t)
	w0 = w
	w.Must(w.Shoal("run", "-d", "--name", "one", "toolbox", "sleep", "100000"))
	storm := func(n int) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := int(next.Add(1)); i <= n && !t.Failed(); i = int(next.Add(1)) {
					exec(t, w, "one")
				}
			})
		}
		wg.Wait()
	}
	storm(200)
	pid := 0
	for _, p := range w.Supervisors() {
		pid = p
	}
	time.Sleep(100 * time.Millisecond)
	before, sup := w.Census(), world.UsageOf(pid)
	began := time.Now()
	storm(*execsFlag)
	t.Logf("%d execs in %v", *execsFlag, time.Since(began).Round(time.Millisecond))
	settled(t, "exec storm", before, w.Census)
	var now world.Usage
	if !world.Await(func() bool {
		now = world.UsageOf(pid)
		return now.Fds <= sup.Fds && now.Threads <= sup.Threads+4 && now.RSS <= sup.RSS+1<<10
	}) {
		t.Errorf("the supervisor holds %+v, before %+v", now, sup)
	}
	t.Logf("supervisor: %+v, before %+v", now, sup)
	if !world.Await(func() bool { return own(pid) <= 1536 }) { // it settles when nobody talks with it
		t.Fatalf("the supervisor at rest after the storm has %d KiB of its own, want at most 1536", own(pid))
	}
	t.Logf("supervisor at rest: %d KiB of its own", own(pid))
	exec(t, w, "one")
}

// own is a process's memory in KiB apart from the program file, which all supervisors share.
func own(pid int) (kib int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(text)) {
		if n, err := fmt.Sscanf(line, "Pss_Dirty: %d kB", &kib); err == nil && n == 1 {
			return kib
		}
	}
	return 0
}

// TestStreamsGo: followers of logs, events, stats and attached clients that go away are forgotten.
func TestStreamsGo(t *testing.T) {
	w := world.New(t)
	w0 = w
	w.Must(w.Shoal("run", "-d", "--name", "talks", "toolbox", "sh", "-c", "while true; do echo x; sleep 0.01; done"))
	pid := 0
	for _, p := range w.Supervisors() {
		pid = p
	}
	open := func(n int) {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				c, err := net.Dial("unix", w.Socket)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				path := []string{"GET /containers/talks/logs?follow=1&stdout=1", "GET /events", "GET /containers/talks/stats",
					"POST /containers/talks/attach?stream=1&stdout=1&logs=1", "POST /containers/talks/wait"}[i%5]
				fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\n\r\n", path)
				if i%5 < 4 && i%5 != 1 {
					io.ReadFull(bufio.NewReader(c), make([]byte, 200))
				}
			})
		}
		wg.Wait()
	}
	open(50)
	time.Sleep(300 * time.Millisecond)
	before, sup := w.Census(), world.UsageOf(pid)
	for range 3 {
		open(100)
	}
	settled(t, "streams", before, w.Census)
	if !world.Await(func() bool { return world.UsageOf(pid).Fds <= sup.Fds }) {
		t.Fatalf("the supervisor holds %+v, before %+v", world.UsageOf(pid), sup)
	}
}

// TestLoads: images loaded and removed again leave no file.
func TestLoads(t *testing.T) {
	w := world.New(t)
	w0 = w
	w.Must(w.Shoal("run", "--name", "src", "toolbox", "sh", "-c", "head -c 1000000 /dev/urandom > /file"))
	w.Must(w.Shoal("commit", "src", "soak:1"))
	archive := filepath.Join(w.Dir, "soak.tar")
	w.Must(w.Shoal("save", "-o", archive, "soak:1"))
	text, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	cycle := func() {
		call(t, w, "POST", "/images/load", text, 200)
		w.Must(w.Shoal("run", "--rm", "soak:1", "true"))
		call(t, w, "DELETE", "/images/soak:1?force=1", nil, 200)
	}
	cycle()
	cycle()
	time.Sleep(200 * time.Millisecond)
	before := w.Census()
	for range *loadsFlag {
		cycle()
	}
	settled(t, "loads", before, w.Census)
}
