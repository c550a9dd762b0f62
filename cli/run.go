package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/cli/runflags"
	"github.com/shoalhq/shoal/cli/terminal"
	"github.com/shoalhq/shoal/lib/errs"
)

type runCommandFlags struct {
	createFlags
	detach     bool
	sigProxy   bool
	detachKeys string
}

func runCommand(a *App) *cobra.Command {
	var r runCommandFlags
	cmd := &cobra.Command{Use: "run [OPTIONS] IMAGE [COMMAND] [ARG...]", Args: count(1, -1)}
	r.add(cmd.Flags())
	cmd.Flags().Lookup("pull").Usage = `Pull image before running ("always", "missing", "never")`
	cmd.Flags().BoolVarP(&r.detach, "detach", "d", false, "Run container in background and print container ID")
	cmd.Flags().BoolVar(&r.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	cmd.Flags().StringVar(&r.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := r.request(a, cmd.Flags(), args)
		if err == nil {
			err = r.check(a, cmd, req)
		}
		if err != nil {
			return runFailed(cmd, errs.ExitEngine, err, true)
		}
		return r.run(cmd, a, req)
	}
	return cmd
}

// check looks at what goes together and settles what --detach means for the container.
func (r *runCommandFlags) check(a *App, cmd *cobra.Command, req *runflags.Request) error {
	c, h := req.Config, req.HostConfig
	if h.OomKillDisable != nil && *h.OomKillDisable && h.Memory == 0 {
		a.warn("Disabling the OOM killer on containers without setting a '-m/--memory' limit may be dangerous.")
	}
	for _, ip := range h.DNS {
		if ip.IsLoopback() {
			a.warn("Localhost DNS setting (--dns=%s) may fail in containers.", ip)
			break
		}
	}
	if r.detach {
		if cmd.Flags().Changed("attach") {
			return badFlag("conflicting options: cannot specify both --attach and --detach")
		}
		c.AttachStdin, c.AttachStdout, c.AttachStderr, c.StdinOnce = false, false, false, false
		return nil
	}
	return needTerminal(a, c.AttachStdin, c.Tty)
}

// needTerminal refuses a container's terminal on input that is none: it would hang or echo garbage.
func needTerminal(a *App, stdin, tty bool) error {
	if stdin && tty && terminalOf(a.In) == nil {
		return badFlag("cannot attach stdin to a TTY-enabled container because stdin is not a terminal; leave out -t, or run from a terminal")
	}
	return nil
}

func (r *runCommandFlags) run(cmd *cobra.Command, a *App, req *runflags.Request) error {
	ctx := cmd.Context()
	api, err := a.API()
	if err != nil {
		return err
	}
	keys, keyList, err := a.detachKeys(r.detachKeys)
	if err != nil {
		return runFailed(cmd, errs.ExitEngine, err, true)
	}
	started := make(chan struct{})
	var id string
	c := req.Config
	attached := c.AttachStdin || c.AttachStdout || c.AttachStderr
	if attached && r.sigProxy {
		// From here on, so that a signal during creation is delivered once the container runs instead of orphaning it.
		stop := terminal.ForwardSignals(started, func(name string) { a.forward(id, name) })
		defer stop()
	}
	if id, err = r.create(ctx, a, req); err != nil {
		return runFailed(cmd, errs.ExitEngine, err, false)
	}
	if !attached {
		if _, err := api.ContainerStart(ctx, id, moby.ContainerStartOptions{}); err != nil {
			return runFailed(cmd, exitCodeOf(err), err, false)
		}
		a.say(id)
		return nil
	}
	s := session{app: a, id: id, tty: c.Tty, keys: keys,
		attach: moby.ContainerAttachOptions{Stream: true, Stdin: c.AttachStdin, Stdout: c.AttachStdout, Stderr: c.AttachStderr, DetachKeys: keyList}}
	condition := container.WaitConditionNextExit
	if req.HostConfig.AutoRemove {
		condition = container.WaitConditionRemoved
	}
	wait, err := s.connect(ctx, condition)
	if err != nil {
		return runFailed(cmd, errs.ExitEngine, err, false)
	}
	defer s.close()
	if _, err := api.ContainerStart(ctx, id, moby.ContainerStartOptions{}); err != nil {
		s.close()
		if req.HostConfig.AutoRemove {
			wait.within(10 * time.Second) // so that the name is free again when we are gone
		}
		return runFailed(cmd, exitCodeOf(err), err, false)
	}
	close(started)
	return s.finish(ctx, wait)
}

// forward sends a signal to the container; one that has just ended is no trouble.
func (a *App) forward(id, signal string) {
	if _, err := a.client.ContainerKill(context.Background(), id, moby.ContainerKillOptions{Signal: signal}); err != nil && a.debug {
		fmt.Fprintln(a.Err, "forwarding", signal+":", err)
	}
}

// runFailed words the failure of run and create as scripts know it.
func runFailed(cmd *cobra.Command, code int, err error, hint bool) error {
	e := exit{code: code, err: err, before: "shoal: "}
	if hint || code == errs.ExitEngine {
		e.after = fmt.Sprintf("\n\nRun '%s --help' for more information", cmd.CommandPath())
	}
	return e
}

// exitCodeOf tells from the reason why the container's program could not be started which exit code says so.
func exitCodeOf(err error) int {
	msg := err.Error()
	for _, s := range []string{"executable file not found", "no such file or directory", "not found in $PATH", "system cannot find the file specified"} {
		if strings.Contains(msg, s) {
			return errs.ExitNotFound
		}
	}
	for _, s := range []string{"permission denied", "is a directory", "exec format error"} {
		if strings.Contains(msg, s) {
			return errs.ExitNotExecutable
		}
	}
	return errs.ExitEngine
}

var errConnectionLost = errors.New("the connection to the engine was lost before the container's exit code came; \"shoal inspect\" or \"shoal wait\" tell it when the engine is back")
