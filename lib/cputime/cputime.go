// Package cputime tells how long this process has been on a processor. Tests hold work to a limit by it: unlike the time of
// a clock it does not grow while others keep the machine busy. It must not be used for promises about waiting.
package cputime

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Used is the time that all threads of this process have had, in the kernel and outside it, since its start.
func Used() time.Duration {
	var at unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &at); err != nil {
		panic(fmt.Errorf("read the processor time of this process: %w", err)) // every Linux has this clock
	}
	return time.Duration(at.Nano())
}

// Of is the time that f takes.
func Of(f func()) time.Duration {
	before := Used()
	f()
	return Used() - before
}
