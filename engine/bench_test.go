package engine

import (
	"os"
	"testing"

	"github.com/shoalhq/shoal/model"
)

// BenchmarkCreateStartRemove is the engine's own share of `run --rm`: the rooms are fakes that take no time.
func BenchmarkCreateStartRemove(b *testing.B) {
	w := newWorld(b)
	w.root = b.TempDir()
	if dir, err := os.MkdirTemp("/dev/shm", "shoal-bench"); err == nil {
		w.fast = dir
		defer os.RemoveAll(dir)
	}
	e := w.open()
	w.onStart = func(TaskStart) *TaskExit { return &TaskExit{} }
	for b.Loop() {
		res, err := e.Create(bg, model.CreateRequest{Image: "busy", Spec: model.ContainerSpec{Options: model.LifeOptions{AutoRemove: true}}})
		if err != nil {
			b.Fatal(err)
		}
		removed, err := e.Wait(bg, res.ID, model.WaitRemoved)
		if err != nil {
			b.Fatal(err)
		}
		if err := e.Start(bg, res.ID); err != nil {
			b.Fatal(err)
		}
		<-removed
	}
}
