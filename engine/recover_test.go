package engine

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalhq/shoal/lib/cputime"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

func TestRunningContainersAreTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "web", func(r *model.CreateRequest) {
			r.Spec.Network.Publish = []model.PortBinding{{Port: model.Port{Number: 80, Proto: model.TCP}}}
		})
		must(t, e.Start(bg, id))
		w.die(e)
		e = w.open()
		v, _ := e.Inspect(bg, "web", false)
		if v.State.Status != model.StatusRunning || v.Network.Ports[0].HostPort != 32768 || !slices.Equal(w.live, []string{id}) {
			t.Fatalf("%+v %+v", v.State, v.Network)
		}
		wait, err := e.Wait(bg, id, model.WaitNotRunning)
		must(t, err)
		w.task(id).end(5)
		if r := <-wait; r.ExitCode != 5 {
			t.Fatal(r)
		}
		must(t, e.Remove(bg, id, model.RemoveOptions{}))
		w.empty(t)
		must(t, e.Close(bg))
	})
}

func TestEndsThatNobodySaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		plain, lost, again, gone, down := create(t, e, "plain"), create(t, e, "lost"), create(t, e, "again", restart("always")),
			create(t, e, "gone", autoRemove), create(t, e, "down", restart("unless-stopped"))
		for _, id := range []string{plain, lost, again, gone, down} {
			must(t, e.Start(bg, id))
		}
		must(t, e.Stop(bg, down, model.StopOptions{}))
		w.die(e)
		for _, id := range []string{plain, again, gone} {
			w.task(id).end(9)
		}
		w.task(lost).forget() // as by a restart of the machine
		e = w.open()
		synctest.Wait()
		for id, want := range map[string]model.Status{plain: model.StatusExited, lost: model.StatusExited, again: model.StatusRunning, down: model.StatusExited} {
			if got := status(e, id); got != want {
				t.Errorf("%s is %s, want %s", id, got, want)
			}
		}
		if v, _ := e.Inspect(bg, plain, false); v.State.ExitCode != 9 {
			t.Errorf("%+v", v.State)
		}
		if v, _ := e.Inspect(bg, lost, false); v.State.ExitCode != 255 || v.State.Error == "" {
			t.Errorf("%+v", v.State)
		}
		if _, err := e.Inspect(bg, gone, false); !errs.Is(err, errs.NotFound) {
			t.Error("the container that was to be removed is still there")
		}
		must(t, e.Remove(bg, again, model.RemoveOptions{Force: true}))
		must(t, e.Close(bg))
	})
}

// TestDeathInEveryStep kills the daemon at each fail point and looks whether the next one finds nothing half-made.
func TestDeathInEveryStep(t *testing.T) {
	for _, step := range []string{"engine/create/image", "engine/create/volumes", "engine/create/record", "engine/start/begin",
		"engine/start/prepared", "engine/start/created", "engine/exit/recorded", "engine/remove/begin", "engine/remove/released"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.open()
				must(t, failpoint.Arm(step+"=error(death)"))
				res, _ := e.Create(bg, model.CreateRequest{Name: "web", Image: "busy"})
				if res.ID != "" {
					if e.Start(bg, res.ID) == nil {
						w.task(res.ID).end(6)
						synctest.Wait()
						if step != "engine/exit/recorded" { // this one looks at the exit code afterwards
							e.Remove(bg, res.ID, model.RemoveOptions{})
						}
					}
				}
				failpoint.Arm("")
				w.die(e)
				w.mu.Lock()
				w.users = map[string]string{} // uses live in memory only
				w.mu.Unlock()
				e = w.open()
				synctest.Wait()
				if v, err := e.Inspect(bg, "web", false); err == nil {
					if v.State.Alive() {
						t.Fatalf("it runs: %+v", v.State)
					}
					if step == "engine/exit/recorded" && (v.State.Status != model.StatusExited || v.State.ExitCode != 6) {
						t.Fatalf("the exit code is lost: %+v", v.State)
					}
					if v.State.Status != model.StatusDead {
						must(t, e.Start(bg, "web"))
					}
					must(t, e.Remove(bg, "web", model.RemoveOptions{Force: true}))
				}
				w.empty(t)
				must(t, e.Close(bg))
			})
		})
	}
}

func TestOrphansGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		orphan := &fakeTask{w: w, id: ids.New(), done: make(chan struct{}), started: time.Now()}
		half := &fakeTask{w: w, id: ids.New(), done: make(chan struct{})}
		w.tasks[orphan.id], w.tasks[half.id] = orphan, half
		e := w.open()
		synctest.Wait()
		w.empty(t)
		must(t, e.Close(bg))
	})
}

func TestManyRecordsLoadFast(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	for range 500 {
		create(t, e, "", autoRemove) // not synced: the test is of reading
	}
	w.die(e)
	if work := cputime.Of(func() { e = w.open() }); work > 500*time.Millisecond {
		t.Errorf("500 records took %v", work)
	}
	if all, _ := e.List(bg, model.ListOptions{All: true}); len(all) != 500 {
		t.Fatal(len(all))
	}
	must(t, e.Close(bg))
}

// TestAnyHistory runs long random histories of operations, ends and deaths of the daemon, and checks after each step that
// records, network, tasks and states agree.
func TestAnyHistory(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			h := &history{t: t, w: newWorld(t), r: rand.New(rand.NewPCG(seed, 1))}
			h.e = h.w.open()
			for range 120 {
				step := h.step()
				synctest.Wait()
				h.check(seed, step)
				if t.Failed() {
					break
				}
			}
			for _, v := range h.list() {
				must(t, h.e.Remove(bg, v.ID, model.RemoveOptions{Force: true, Volumes: true}))
			}
			synctest.Wait()
			h.w.empty(t)
			must(t, h.e.Close(bg))
		})
	}
}

type history struct {
	t *testing.T
	w *world
	e *Engine
	r *rand.Rand
}

func (h *history) list() []model.ContainerView {
	all, err := h.e.List(bg, model.ListOptions{All: true})
	must(h.t, err)
	return all
}

func (h *history) step() string {
	all := h.list()
	if len(all) == 0 || len(all) < 4 && h.r.IntN(5) == 0 {
		policy := []string{"no", "always", "unless-stopped", "on-failure"}[h.r.IntN(4)]
		network := []string{"bridge", "none", "host"}[h.r.IntN(3)]
		remove := policy == "no" && h.r.IntN(3) == 0
		image := []string{"busy", "data"}[h.r.IntN(2)]
		create(h.t, h.e, "", restart(policy), func(r *model.CreateRequest) {
			r.Image, r.Spec.Network.Mode, r.Spec.Options.AutoRemove = image, network, remove
		})
		return "create " + policy + " " + network
	}
	v := all[h.r.IntN(len(all))]
	switch n := h.r.IntN(12); n {
	case 0, 1, 2:
		return "start " + text(h.e.Start(bg, v.ID))
	case 3:
		return "stop " + text(h.e.Stop(bg, v.ID, model.StopOptions{}))
	case 4:
		return "kill " + text(h.e.Kill(bg, v.ID, ""))
	case 5:
		return "restart " + text(h.e.Restart(bg, v.ID, model.StopOptions{}))
	case 6:
		return "pause " + text(h.e.Pause(bg, v.ID))
	case 7:
		return "unpause " + text(h.e.Unpause(bg, v.ID))
	case 8:
		return "remove " + text(h.e.Remove(bg, v.ID, model.RemoveOptions{Force: h.r.IntN(2) == 0, Volumes: true}))
	case 9:
		h.w.die(h.e)
		if h.r.IntN(2) == 0 {
			h.endAny(v.ID)
		}
		h.e = h.w.open()
		return "death of the daemon"
	case 10:
		pass(time.Duration(h.r.IntN(20)) * time.Second)
		return "time"
	}
	h.endAny(v.ID)
	return "end"
}

func (h *history) endAny(id string) {
	if task := h.w.task(id); task != nil {
		task.end(h.r.IntN(2))
	}
}

func text(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func (h *history) check(seed uint64, step string) {
	names := map[string]bool{}
	for _, v := range h.list() {
		fail := func(what string) {
			h.t.Errorf("seed %d, after %q: container %s (%s, %s): %s", seed, step, v.Name, v.State.Status, v.Spec.Restart.Name, what)
		}
		task := h.w.task(v.ID)
		alive := task != nil && !ended(task)
		h.w.mu.Lock()
		_, attached := h.w.attached[v.ID]
		_, used := h.w.users[v.ID]
		h.w.mu.Unlock()
		switch {
		case v.State.Alive() != alive:
			fail("its state and its process do not agree")
		case attached != (alive && v.Spec.Network.Mode == "bridge"):
			fail("its state and its network do not agree")
		case !used:
			fail("its image is not held")
		case v.State.Alive() != (v.State.Pid != 0):
			fail("pid")
		case names[v.Name]:
			fail("its name is another's too")
		case task != nil && !alive:
			fail("its supervisor's directory is left")
		}
		names[v.Name] = true
	}
	dirs, _ := filepath.Glob(filepath.Join(h.w.root, "lib", "containers", "[0-9a-f]*"))
	if len(dirs) != len(names) {
		h.t.Errorf("seed %d, after %q: %d directories of %d containers: %s", seed, step, len(dirs), len(names), strings.Join(dirs, " "))
	}
}

// A container that the daemon froze for a commit runs again after the daemon's death; one that a user paused stays paused.
func TestFrozenAtDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		held, paused, resumed := create(t, e, "held"), create(t, e, "paused"), create(t, e, "resumed")
		for _, id := range []string{held, paused, resumed} {
			must(t, e.Start(bg, id))
		}
		must(t, e.Pause(bg, paused))
		must(t, e.Pause(bg, resumed))
		w.task(held).frozen, w.task(resumed).frozen = true, false
		w.die(e)
		e = w.open()
		synctest.Wait()
		for id, want := range map[string]model.Status{held: model.StatusRunning, paused: model.StatusPaused, resumed: model.StatusRunning} {
			if got := status(e, id); got != want || w.task(id).frozen != (want == model.StatusPaused) {
				t.Errorf("%s is %s, want %s; frozen: %v", id, got, want, w.task(id).frozen)
			}
		}
		for _, id := range []string{held, paused, resumed} {
			must(t, e.Remove(bg, id, model.RemoveOptions{Force: true}))
		}
		must(t, e.Close(bg))
	})
}
