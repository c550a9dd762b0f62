// Package container is the runtime as a library: it creates containers from OCI configurations and starts, inspects,
// signals, changes and deletes them, and runs further processes in them. The OCI command line (runtime/ocicli) and the
// supervisor of one container (runtime/supervise) are its two users. It must not know of images, networks or the API.
//
// Whoever calls Create, Run or Exec becomes the parent of the new process and waits for it (Process.Wait, or its own
// SIGCHLD handling); the process's pid and pidfd are in the Process that is returned.
//
//	rt := container.Open("/run/shoal/runtime")
//	p, err := rt.Run(container.CreateOptions{ID: id, Bundle: dir, Launch: container.Launch{Stdio: [3]*os.File{in, out, errw}}})
//	status, err := p.Wait()
//	err = rt.Delete(id, false)
//
// or in two steps, p, err := rt.Create(...) and later, from any process, rt.Start(id). With Process.Terminal in the
// configuration, Process.Console is the terminal's master and Stdio is not used.
//
// How a start works:
//
//	caller                                     child
//	validate, make state directory
//	make cgroups | compile seccomp filter      (two goroutines)
//	clone3 from a thread inside the cgroups -> joins and makes namespaces with raw system calls,
//	record pid, oom score, id mappings         executes the runtime's binary, from a read-only mount, as init
//	send Config  ---------------------------->  root file system, devices, pivot, labels, user, capabilities, seccomp
//	                                            (Create: waits on start.sock)
//	socket closes <---------------------------  execve
//
// Errors are of lib/errs kinds: Invalid for a bad configuration, NotFound for a missing container or program, Forbidden
// for a program that may not be executed (ExitCode maps them to 126 and 127), Conflict for a wrong state.
package container
