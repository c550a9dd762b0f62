package main

import (
	"testing"
	"time"
)

// A shortened trace of a start: the command (10) has the threads 11 and 12, a daemon's thread (5) connects meanwhile and
// starts a supervisor ahead (30), init (20) is executed and becomes the program.
const traced = `# tracer: nop
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
           <...>-10      [001] .....   100.000000: sched_process_exec: filename=/usr/bin/shoal pid=10 old_pid=10
           shoal-10      [001] .....   100.001000: sched_process_fork: comm=shoal pid=10 child_comm=shoal child_pid=11
          shoald-5       [000] .....   100.001500: sys_enter: NR 42 (5, c000, 13, 0, 0, 0)
           shoal-11      [001] .....   100.004000: sys_enter: NR 42 (5, c000, 13, 0, 0, 0)
           shoal-11      [001] .....   100.004100: sched_process_fork: comm=shoal pid=11 child_comm=shoal child_pid=12
           shoal-12      [001] .....   100.006000: sys_enter: NR 42 (8, c000, 13, 0, 0, 0)
           <...>-30      [000] .....   100.007000: sched_process_exec: filename=/usr/bin/shoal-runtime pid=30 old_pid=30
           <...>-20      [000] .....   100.009000: sched_process_exec: filename=/dev/fd/20 pid=20 old_pid=20
           <...>-20      [000] .....   100.013000: sched_process_exec: filename=/bin/true pid=20 old_pid=20
            true-20      [000] d....   100.013500: sched_process_exit: comm=true pid=20 prio=120 group_dead=true
           shoal-12      [001] d....   100.014000: sched_process_exit: comm=shoal pid=12 prio=120 group_dead=false
           shoal-10      [001] d....   100.016000: sched_process_exit: comm=shoal pid=10 prio=120 group_dead=true
`

func TestMomentsOfAStart(t *testing.T) {
	m := momentsOf(10, "/bin/true", readTrace(traced))
	want := []time.Duration{4, 2, 3, 4, 0, 2, 16}
	for i, p := range runPhases {
		if got := p.part(m).Truncate(time.Millisecond); got != want[i]*time.Millisecond {
			t.Errorf("%s: %v, want %d ms", p.what, got, want[i])
		}
	}
}
