package engine

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// A supervisor that is stopped or stuck must cost neither its container nor the daemon's start.
func TestSupervisorThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "web", restart("always"))
		must(t, e.Start(bg, id))
		w.die(e)
		w.faults["tasks.Reattach"] = errs.New(errs.Unavailable, "no answer")
		e = w.open()
		if got := status(e, id); got != model.StatusRunning || !slices.Equal(w.live, []string{id}) {
			t.Fatal(got, w.live)
		}
		for what, err := range map[string]error{"stop": e.Stop(bg, id, model.StopOptions{}), "kill": e.Kill(bg, id, ""),
			"remove": e.Remove(bg, id, model.RemoveOptions{Force: true}), "pause": e.Pause(bg, id)} {
			if !errs.Is(err, errs.Unavailable) {
				t.Errorf("%s: %v", what, err)
			}
		}
		wait, err := e.Wait(bg, id, model.WaitNextExit)
		must(t, err)
		w.task(id).end(3)
		if r := <-wait; r.ExitCode != 3 {
			t.Fatal(r)
		}
		synctest.Wait()
		must(t, e.Remove(bg, id, model.RemoveOptions{Force: true}))
		w.empty(t)
		must(t, e.Close(bg))
	})
}

// The last failure to start again is the end for those who wait for one.
func TestWaitersLearnThatNoRestartComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "job", func(r *model.CreateRequest) {
			r.Spec.Restart = model.RestartPolicy{Name: "on-failure", MaxRetries: 1}
		})
		must(t, e.Start(bg, id))
		w.faults["tasks.Start"] = errs.New(errs.Internal, "boom")
		w.task(id).end(4)
		for status(e, id) == model.StatusRunning {
			synctest.Wait()
		}
		var waits []<-chan model.WaitResult
		for _, cond := range []model.WaitCondition{model.WaitNotRunning, model.WaitNextExit} {
			c, err := e.Wait(bg, id, cond)
			must(t, err)
			waits = append(waits, c)
		}
		for _, c := range waits {
			if r := <-c; r.ExitCode != 128 {
				t.Error(r)
			}
		}
		must(t, e.Remove(bg, id, model.RemoveOptions{}))
		must(t, e.Close(bg))
	})
}

func TestPortsOfAHostileImage(t *testing.T) {
	var exposed []string
	for range 100 {
		exposed = append(exposed, "1-65535/tcp")
	}
	if err := mergePorts(&model.ContainerNetworkSpec{}, exposed); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	var n model.ContainerNetworkSpec
	if err := mergePorts(&n, []string{"1-65535/tcp", "1-65535/udp"}); err != nil || len(n.Exposed) != 2*65535 {
		t.Fatal(len(n.Exposed), err)
	}
}

func TestNamesThatWouldMakeLinesOfTheirOwn(t *testing.T) {
	for _, n := range []model.ContainerNetworkSpec{
		{Links: []string{"db:x\n192.0.2.1 bank.example"}},
		{Names: model.NameSpec{ExtraHosts: []string{"x\n192.0.2.1 bank.example:192.0.2.2"}}},
	} {
		if err := validateNetwork(&model.ContainerSpec{Network: n}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", n, err)
		}
	}
}
