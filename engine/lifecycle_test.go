package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

var bg = context.Background()

func create(t testing.TB, e *Engine, name string, change ...func(*model.CreateRequest)) string {
	t.Helper()
	r := model.CreateRequest{Name: name, Image: "busy"}
	for _, f := range change {
		f(&r)
	}
	res, err := e.Create(bg, r)
	if err != nil {
		t.Fatal(err)
	}
	return res.ID
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind errs.Kind, text string) {
	t.Helper()
	if !errs.Is(err, kind) || !strings.Contains(fmt.Sprint(err), text) {
		t.Fatalf("error %v (%v), want %v with %q", err, errs.KindOf(err), kind, text)
	}
}

func status(e *Engine, ref string) model.Status {
	v, err := e.Inspect(bg, ref, false)
	if err != nil {
		return model.Status(err.Error())
	}
	return v.State.Status
}

func restart(name string) func(*model.CreateRequest) {
	return func(r *model.CreateRequest) { r.Spec.Restart.Name = name }
}

func autoRemove(r *model.CreateRequest) { r.Spec.Options.AutoRemove = true }

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "web")
		wait, err := e.Wait(bg, "web", model.WaitNextExit)
		must(t, err)
		must(t, e.Start(bg, "web"))
		wantKind(t, e.Start(bg, id[:6]), errs.NotModified, "already running")
		wantKind(t, e.Remove(bg, "web", model.RemoveOptions{}), errs.Conflict, "stop the container before removing")
		v, err := e.Inspect(bg, "web", false)
		must(t, err)
		if v.State.Status != model.StatusRunning || v.Network.Endpoints["bridge"].IPv4.String() != "172.17.0.2/16" {
			t.Fatalf("%+v %+v", v.State, v.Network)
		}
		hosts, _ := os.ReadFile(v.Runtime.HostsPath)
		if !strings.Contains(string(hosts), "172.17.0.2 "+id[:12]) {
			t.Fatalf("hosts: %q", hosts)
		}
		w.task(id).end(7)
		if r := <-wait; r.ExitCode != 7 {
			t.Fatal(r)
		}
		if got := status(e, "web"); got != model.StatusExited {
			t.Fatal(got)
		}
		must(t, e.Start(bg, "web"))
		must(t, e.Stop(bg, "web", model.StopOptions{}))
		wantKind(t, e.Stop(bg, "web", model.StopOptions{}), errs.NotModified, "not running")
		must(t, e.Remove(bg, "web", model.RemoveOptions{}))
		wantKind(t, e.Start(bg, "web"), errs.NotFound, "No such container: web")
		w.empty(t)
		want := "create start die start kill die stop destroy"
		if got := strings.Join(w.actions(), " "); got != want {
			t.Fatalf("events %q, want %q", got, want)
		}
		must(t, e.Close(bg))
	})
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "deaf")
		must(t, e.Start(bg, id))
		w.task(id).ignores = true
		began := time.Now()
		must(t, e.Stop(bg, id, model.StopOptions{Timeout: new(3)}))
		if took := time.Since(began); took != 3*time.Second {
			t.Fatal(took)
		}
		v, _ := e.Inspect(bg, id, false)
		if v.State.ExitCode != 137 || v.State.Pid != 0 {
			t.Fatalf("%+v", v.State)
		}
		must(t, e.Close(bg))
	})
}

func TestKillReachesAContainerThatIsBeingStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "deaf")
		must(t, e.Start(bg, id))
		w.task(id).ignores = true
		stopped := make(chan error)
		go func() { stopped <- e.Stop(bg, id, model.StopOptions{Timeout: new(-1)}) }()
		synctest.Wait()
		must(t, e.Kill(bg, id, "KILL"))
		must(t, <-stopped)
		must(t, e.Close(bg))
	})
}

func TestPausedContainerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "ice")
		must(t, e.Start(bg, id))
		must(t, e.Pause(bg, id))
		wantKind(t, e.Pause(bg, id), errs.Conflict, "already paused")
		wantKind(t, e.Start(bg, id), errs.Conflict, "try unpause")
		must(t, e.Stop(bg, id, model.StopOptions{}))
		wantKind(t, e.Unpause(bg, id), errs.Conflict, "not running")
		must(t, e.Close(bg))
	})
}

func TestAutoRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "", autoRemove, func(r *model.CreateRequest) { r.Image = "data" })
		wait, err := e.Wait(bg, id, model.WaitRemoved)
		must(t, err)
		must(t, e.Start(bg, id))
		w.task(id).end(3)
		if r := <-wait; r.ExitCode != 3 || r.Err != nil {
			t.Fatal(r)
		}
		synctest.Wait()
		w.empty(t)
		must(t, e.Close(bg))
	})
}

func TestRestartBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "crash", restart("always"))
		var at []time.Duration
		began := time.Now()
		w.onStart = func(TaskStart) *TaskExit {
			at = append(at, time.Since(began))
			return &TaskExit{Code: 1}
		}
		must(t, e.Start(bg, id))
		pass(1650 * time.Millisecond) // virtual
		synctest.Wait()
		want := []time.Duration{0, 100, 300, 700, 1500}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(at, want) {
			t.Fatalf("started at %v, want %v", at, want)
		}
		if got := status(e, id); got != model.StatusRestarting {
			t.Fatal(got)
		}
		must(t, e.Stop(bg, id, model.StopOptions{}))
		pass(time.Hour)
		if len(at) != 5 || status(e, id) != model.StatusExited {
			t.Fatalf("started %d times, is %s", len(at), status(e, id))
		}
		must(t, e.Close(bg))
	})
}

func TestBackOffStartsAnewAfterALongRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "long", restart("unless-stopped"))
		must(t, e.Start(bg, id))
		for range 3 {
			pass(11 * time.Second)
			w.task(id).end(1)
			pass(101 * time.Millisecond)
			synctest.Wait()
			if got := status(e, id); got != model.StatusRunning {
				t.Fatal(got)
			}
		}
		must(t, e.Stop(bg, id, model.StopOptions{}))
		must(t, e.Close(bg))
	})
}

func TestOnFailureCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		runs := 0
		w.onStart = func(TaskStart) *TaskExit { runs++; return &TaskExit{Code: 2} }
		id := create(t, e, "", func(r *model.CreateRequest) { r.Spec.Restart = model.RestartPolicy{Name: "on-failure", MaxRetries: 3} })
		must(t, e.Start(bg, id))
		pass(time.Hour)
		v, _ := e.Inspect(bg, id, false)
		if runs != 4 || v.State.RestartCount != 3 || v.State.Status != model.StatusExited {
			t.Fatalf("%d runs, %+v", runs, v.State)
		}
		must(t, e.Close(bg))
	})
}

// TestEveryFailureLeavesNothing fails each step of create and start once.
func TestEveryFailureLeavesNothing(t *testing.T) {
	steps := []string{"images.Use", "images.Lowers", "volumes.Create", "volumes.Fill", "volumes.Mount", "rootfs.ReadFile", "networks.Namespace",
		"networks.Attach", "networks.Files", "tasks.Start", "tasks.Running", "rootfs.SharedMemory",
		"engine/create/image", "engine/create/volumes", "engine/create/record", "engine/start/begin", "engine/start/prepared", "engine/start/created"}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.open()
				if strings.HasPrefix(step, "engine/") {
					must(t, failpoint.Arm(step+"=error(boom)"))
					defer failpoint.Arm("")
				} else {
					w.faults[step] = errors.New("boom")
				}
				r := model.CreateRequest{Name: "web", Image: "data", Spec: model.ContainerSpec{Isolation: model.IsolationSpec{IPC: "shareable"}}}
				res, err := e.Create(bg, r)
				if err == nil {
					err = e.Start(bg, res.ID)
					if v, _ := e.Inspect(bg, res.ID, false); v.State.Status != model.StatusCreated || !strings.Contains(v.State.Error, "boom") {
						t.Errorf("%+v", v.State)
					}
					must(t, e.Remove(bg, res.ID, model.RemoveOptions{Volumes: true}))
				}
				if err == nil || !strings.Contains(err.Error(), "boom") {
					t.Fatalf("error %v", err)
				}
				synctest.Wait()
				w.empty(t)
				failpoint.Arm("")
				must(t, e.Start(bg, create(t, e, "web"))) // the name is free again
				must(t, e.Close(bg))
			})
		})
	}
}

func TestMissingProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "")
		w.faults["tasks.Running"] = &StartFailure{Code: 127, Err: errors.New(`exec: "nope": executable file not found in $PATH`)}
		wantKind(t, e.Start(bg, id), errs.Invalid, "executable file not found")
		if v, _ := e.Inspect(bg, id, false); v.State.ExitCode != 127 {
			t.Fatalf("%+v", v.State)
		}
		must(t, e.Close(bg))
	})
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "web")
		_, err := e.Create(bg, model.CreateRequest{Name: "/web", Image: "busy"})
		wantKind(t, err, errs.Conflict, id)
		_, err = e.Create(bg, model.CreateRequest{Name: "we b", Image: "busy"})
		wantKind(t, err, errs.Invalid, "Invalid container name (we b)")
		must(t, e.Rename(bg, "web", "shop"))
		wantKind(t, e.Rename(bg, "shop", "shop"), errs.Invalid, "same name")
		if create(t, e, "web") == id {
			t.Fatal("the old name is not free")
		}
		wantKind(t, e.Rename(bg, "web", "shop"), errs.Conflict, "already in use")
		made := create(t, e, "")
		v, _ := e.Inspect(bg, made, false)
		if !strings.Contains(v.Name, "_") {
			t.Fatal(v.Name)
		}
		must(t, e.Close(bg))
	})
}

func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "web", func(r *model.CreateRequest) {
			r.Spec.Process.Env = []string{"A=mine", "B=2"}
			r.Spec.Process.Cmd = []string{"echo", "hi"}
			r.Spec.Labels = map[string]string{"mine": "1"}
			r.Spec.Process.User = "web"
			r.Spec.Security.GroupAdd = []string{"100"}
		})
		v, _ := e.Inspect(bg, id, false)
		if got := strings.Join(v.Spec.Process.Env, " "); got != "A=mine B=2 PATH=/bin" {
			t.Fatal(got)
		}
		if v.Spec.Labels["from"] != "image" || v.Spec.Labels["mine"] != "1" || len(v.Spec.Network.Exposed) != 1 {
			t.Fatalf("%+v", v.Spec)
		}
		must(t, e.Start(bg, id))
		p := w.task(id).spec.Process
		if p.User.UID != 33 || fmt.Sprint(p.User.AdditionalGids) != "[33 7 100]" || fmt.Sprint(p.Args) != "[echo hi]" {
			t.Fatalf("%+v", p)
		}
		if !slices.Contains(p.Env, "HOME=/srv") || !slices.Contains(p.Env, "HOSTNAME="+id[:12]) {
			t.Fatal(p.Env)
		}
		must(t, e.Close(bg))
	})
}
