// Package task is the daemon's side of the supervisors: it starts one per container, talks with it, finds it again after
// the daemon's own death, and reads the logs it wrote. It must not decide anything about containers (restarts, health,
// records): that is the engine's work. It never polls: it learns of exits and out-of-memory kills from a connection that
// it keeps with every supervisor, whose end also tells that a supervisor was killed.
//
// # Life of a task
//
//	m, err := task.New(task.Config{RuntimePath: "/usr/bin/shoal-runtime", ExecRoot: "/run/shoal"})
//	t, err := m.Start(ctx, task.StartRequest{Config: ..., Spec: ..., Namespace: netns, Created: func(t *task.Task) error {
//	        // the init process exists, its program does not run yet: connect the network to /proc/PID/ns/net,
//	        // and attach the clients who wait: conn, err := t.Attach(ctx, ...)
//	}})
//	<-t.Done(); how := t.Exit()
//	m.Clear(ctx, id)
//
// When Start returns an error nothing is left behind; *StartFailure in its chain says which exit code to show (126, 127,
// 128). After a restart of the daemon, Known lists what is there and Reattach gives for each the running task, or the exit
// status of one that ended meanwhile, or neither (half a start, which it took back).
//
// # Attach before the start
//
// `docker run` attaches first and starts then. The engine keeps such clients until Created is called; an Attach made
// there is answered before the container's program runs, so not one byte is missed. Created gets the same *Task that
// Start returns. Attachments made there hold the container's output back when the client does not read (as a pipe does);
// later ones are observers: see docs/supervisor.md.
//
// # The network namespace
//
// StartRequest.Namespace goes to the supervisor when it is there; Start puts its path there (/proc/self/fd/4) into the spec's network
// namespace. The caller may close its file when Start has returned.
//
// # A supervisor that was killed
//
// The connection ends without an exit status. The container is then without anybody who reads its output or learns its
// exit status, so its processes are killed through the cgroup and the task ends with code 137 and a Reason that says so.
package task
