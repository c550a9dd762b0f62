//go:build kernel

package chaos

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "seed of the storm; 0 takes the time")
	roundsFlag = flag.Int("rounds", 6, "rounds of the storm: each ends with the daemon's death")
)

// client is one of those who use the daemon while it dies. Every command may fail at the daemon's death; what the client
// was told has happened must still be so afterwards.
type client struct {
	w     *world.World
	n     int
	rnd   *rand.Rand
	codes map[string]int  // exit codes that the client was told, by container
	gone  map[string]bool // containers whose removal was confirmed
	made  []string        // containers whose start was confirmed
}

func (c *client) run(args ...string) (string, bool) {
	cmd := c.w.Command(world.Bin(c.w.T, "shoal"), args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return "", false
	}
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		c.w.T.Errorf("shoal %v hung for a minute", args)
	}
	return strings.TrimSpace(out.String()), err == nil
}

// count prints numbered lines, so that holes are seen.
const count = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done"

// storm does one thing after the other until told to stop.
func (c *client) storm(stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		name := fmt.Sprintf("c%d-%d-%d", c.n, i, c.rnd.IntN(1000000))
		switch c.rnd.IntN(9) {
		case 0, 1:
			code := c.rnd.IntN(100)
			if _, ok := c.run("run", "-d", "--name", name, "toolbox", "sh", "-c", "exit "+strconv.Itoa(code)); ok {
				c.codes[name] = code
			}
		case 2, 3:
			if _, ok := c.run("run", "-d", "--name", name, "-p", "80", "toolbox", "sh", "-c", count); ok {
				c.made = append(c.made, name)
			}
		case 4:
			c.run("run", "--rm", "--name", name, "--network", "none", "toolbox", "true")
		case 5:
			if n := len(c.made); n > 0 {
				c.run("exec", c.made[n-1], "echo", "x")
				c.run("cp", c.made[n-1]+":/etc/passwd", filepath.Join(c.w.Dir, name))
			}
		case 6:
			if n := len(c.made); n > 0 {
				victim := c.made[n-1]
				c.made = c.made[:n-1]
				c.run("stop", "-t", "0", victim)
				if _, ok := c.run("rm", "-f", victim); ok {
					c.gone[victim] = true
				}
			}
		case 7:
			if n := len(c.made); n > 0 {
				c.run("commit", c.made[0], "storm:"+name)
			}
		case 8:
			if n := len(c.made); n > 0 {
				cmd := c.w.Command(world.Bin(c.w.T, "shoal"), "logs", "-f", c.made[n-1])
				if cmd.Start() == nil { // killed at some time, as users' terminals are closed
					time.AfterFunc(time.Duration(c.rnd.IntN(100))*time.Millisecond, func() { cmd.Process.Kill() })
					cmd.Wait()
				}
			}
		}
	}
}

type inspected struct {
	ID    string `json:"Id"`
	State struct {
		Status   string
		ExitCode int
		Pid      int
		Error    string
	}
}

func inspect(w *world.World, name string) (v inspected, code int) {
	a := w.API("GET", "/containers/"+name+"/json", nil)
	json.Unmarshal(a.Body, &v)
	return v, a.Code
}

// TestStorm kills the daemon at random moments while clients use it.
func TestStorm(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again with: -run TestStorm -seed %d", seed)
	w := world.New(t)
	w.Must(w.Shoal("run", "--name", "first", "-p", "80", "toolbox", "true"))
	w.Must(w.Shoal("rm", "first"))
	base := w.Count()
	rnd := rand.New(rand.NewPCG(seed, 1))
	var clients []*client
	for n := range 4 {
		clients = append(clients, &client{w: w, n: n, rnd: rand.New(rand.NewPCG(seed, uint64(n)+10)), codes: map[string]int{}, gone: map[string]bool{}})
	}
	for round := range *roundsFlag {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { c.storm(stop) })
		}
		time.Sleep(time.Duration(200+rnd.IntN(1200)) * time.Millisecond)
		if rnd.IntN(4) == 0 {
			w.StopDaemon()
		} else {
			w.KillDaemon()
		}
		close(stop)
		wg.Wait()
		w.StartDaemon()
		if rnd.IntN(3) == 0 { // killed again at once, before it has settled
			w.KillDaemon()
			w.StartDaemon()
		}
		check(t, w, clients, round)
		if t.Failed() {
			return
		}
	}
	if ids := strings.Fields(w.Shoal("ps", "-aq").Out); len(ids) > 0 {
		w.Must(w.Shoal(append([]string{"rm", "-f"}, ids...)...))
	}
	if !world.Await(func() bool { return w.Count() == base }) {
		t.Fatalf("left over: %+v, before %+v", w.Count(), base)
	}
}

// check compares what the clients were told with what the new daemon says.
func check(t *testing.T, w *world.World, clients []*client, round int) {
	at := fmt.Sprintf("round %d: ", round)
	for _, c := range clients {
		for name, code := range c.codes {
			v, status := inspect(w, name)
			world.Await(func() bool {
				v, status = inspect(w, name)
				return status == 200 && v.State.Status == "exited"
			})
			if status != 200 || v.State.Status != "exited" || v.State.ExitCode != code {
				t.Errorf("%s%s is %+v (%d), want exit code %d", at, name, v.State, status, code)
			}
			w.API("DELETE", "/containers/"+name+"?force=1", nil)
		}
		clear(c.codes)
		for name := range c.gone {
			if v, status := inspect(w, name); status != 404 {
				t.Errorf("%s%s is back: %+v", at, name, v.State)
			}
		}
		clear(c.gone)
		for _, name := range c.made {
			checkRunning(t, w, at, name)
		}
		c.made = nil
	}
	sups := w.Supervisors()
	var all []struct {
		ID    string `json:"Id"`
		State string
		Names []string
	}
	if err := w.API("GET", "/containers/json?all=1", nil).Into(&all); err != nil {
		t.Fatal(at, err)
	}
	known := map[string]string{}
	for _, c := range all {
		known[c.ID] = c.State
		if c.State == "paused" {
			t.Errorf("%s%v is paused, and nobody asked for it", at, c.Names)
		}
	}
	for id, pid := range sups {
		if known[id] == "" {
			t.Errorf("%sa supervisor %d of a container that there is not: %s", at, pid, id)
		}
	}
	for _, c := range all {
		w.API("DELETE", "/containers/"+c.ID+"?force=1&v=1", nil)
	}
}

// checkRunning: a container that ran before the death runs, answers, and has a log without holes.
func checkRunning(t *testing.T, w *world.World, at, name string) {
	v, status := inspect(w, name)
	if status != 200 || v.State.Status != "running" {
		t.Errorf("%s%s ran, and is now %+v (%d)", at, name, v.State, status)
		return
	}
	if frozen(v.ID) {
		t.Errorf("%s%s is frozen, and says that it runs", at, name)
		return
	}
	if r := w.Shoal("exec", name, "echo", "alive"); r.Out != "alive\n" {
		t.Errorf("%sexec in %s: %+v", at, name, r)
	}
	w.Shoal("kill", name)
	lines := strings.Split(strings.TrimSpace(w.Shoal("logs", name).Out), "\n")
	for i, line := range lines {
		want := fmt.Sprintf("line %d", i+1)
		cut := i == len(lines)-1 && strings.HasPrefix(want, line) // the shell writes word by word, and was killed
		if line != want && !cut {
			t.Errorf("%sthe log of %s has a hole: line %d of %d is %q", at, name, i+1, len(lines), line)
			return
		}
	}
}

func frozen(id string) bool {
	found := false
	for _, pattern := range []string{"/sys/fs/cgroup/freezer/*/" + id + "/freezer.state", "/sys/fs/cgroup/*/" + id + "/cgroup.freeze"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			b, _ := os.ReadFile(f)
			found = found || strings.HasPrefix(string(b), "FR") || strings.TrimSpace(string(b)) == "1"
		}
	}
	return found
}

// A daemon that dies during a commit leaves the container running, not frozen for ever.
func TestDeathDuringCommit(t *testing.T) {
	w := world.New(t)
	w.StopDaemon()
	w.StartDaemon("SHOAL_FAILPOINTS=engine/commit/paused=kill")
	w.Must(w.Shoal("run", "-d", "--name", "held", "toolbox", "sh", "-c", count))
	w.Shoal("commit", "held", "held:1")
	w.AwaitDaemonEnd()
	w.StartDaemon()
	checkRunning(t, w, "", "held")
}

// The supervisor killed takes its container with it; the daemon says so, cleans up, and a restart policy counts.
func TestSupervisorKilled(t *testing.T) {
	w := world.New(t)
	w.Must(w.Shoal("run", "-d", "--name", "plain", "-p", "127.0.0.1:8097:80", "whoami"))
	w.Must(w.Shoal("run", "-d", "--name", "again", "--restart", "always", "toolbox", "sleep", "1000"))
	for _, daemonToo := range []bool{false, true} {
		before := map[string]inspected{}
		for _, name := range []string{"plain", "again"} {
			v, _ := inspect(w, name)
			before[name] = v
			pid := w.Supervisors()[v.ID]
			if pid == 0 {
				t.Fatalf("%s has no supervisor: %+v", name, v.State)
			}
			if daemonToo {
				w.KillDaemon()
			}
			syscall.Kill(pid, syscall.SIGKILL)
			if daemonToo {
				w.StartDaemon()
			}
		}
		within(t, "plain has ended", func() bool { v, _ := inspect(w, "plain"); return v.State.Status == "exited" })
		if v, _ := inspect(w, "plain"); v.State.ExitCode == 0 || v.State.Error == "" {
			t.Errorf("how plain ended: %+v", v.State)
		}
		within(t, "again runs again", func() bool {
			v, _ := inspect(w, "again")
			return v.State.Status == "running" && v.State.Pid != before["again"].State.Pid
		})
		for name, v := range before {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", v.State.Pid)); err == nil && bytes.Contains(b, []byte(v.ID)) {
				st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.State.Pid))
				if !bytes.Contains(st, []byte("\tZ")) { // dead, and the host's init has not asked yet
					t.Errorf("the process of %s outlived its supervisor: %s", name, st)
				}
			}
		}
		w.Must(w.Shoal("start", "plain"))
	}
}

func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	world.Eventually(t, what, f)
}

// TestRestartWithMany: 500 containers, 50 of them running; the API is back after less than a second of work.
func TestRestartWithMany(t *testing.T) {
	w := world.New(t)
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := c; i < 500; i += 4 {
				name := fmt.Sprintf("many%03d", i)
				if a := w.API("POST", "/containers/create?name="+name, map[string]any{"Image": "toolbox", "Cmd": []string{"sleep", "1000"}}); a.Code != 201 {
					t.Errorf("create: %d %s %v", a.Code, a.Body, a.Err)
					return
				}
				if i < 50 {
					if a := w.API("POST", "/containers/"+name+"/start", nil); a.Code != 204 {
						t.Errorf("start: %d %s %v", a.Code, a.Body, a.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, how := range []string{"killed", "told to end"} {
		if how == "killed" {
			w.KillDaemon()
		} else {
			w.StopDaemon()
		}
		began := time.Now()
		w.StartDaemon()
		took, work := time.Since(began), world.Worked(w.DaemonPid())
		t.Logf("%s: served again after %v, of them %v of work", how, took.Round(time.Millisecond), work)
		if work > time.Second || took > 15*time.Second { // on a busy machine the work waits for a processor
			t.Errorf("%s: the API was back after %v with %v of work, want less than a second", how, took, work)
		}
		var all []struct{ State string }
		if err := w.API("GET", "/containers/json?all=1", nil).Into(&all); err != nil {
			t.Fatal(err)
		}
		states := map[string]int{}
		for _, c := range all {
			states[c.State]++
		}
		if states["running"] != 50 || states["created"] != 450 {
			t.Errorf("%s: %v", how, states)
		}
	}
}
