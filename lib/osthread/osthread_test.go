package osthread

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNeverTheFirstThread(t *testing.T) {
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			Run(func() {
				if unix.Gettid() == unix.Getpid() {
					t.Error("ran on the first thread")
				}
			})
		})
	}
	wg.Wait()
}
