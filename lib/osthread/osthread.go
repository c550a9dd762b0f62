// Package osthread runs code on an operating system thread that is thrown away afterwards, for what cannot be undone
// for a thread: other namespaces, other root, other credentials.
package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run calls f on a thread of its own, waits for it, and lets the thread end. It is never the process's first thread,
// whose namespaces are what /proc/PID shows of the process, and which does not end before the process.
func Run(f func()) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // without unlock: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			Run(f) // this goroutine waits here and so keeps the first thread busy
			runtime.UnlockOSThread()
		} else {
			f()
		}
		close(done)
	}()
	<-done
}
