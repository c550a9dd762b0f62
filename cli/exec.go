package cli

import (
	"context"
	"errors"

	"github.com/docker/cli/opts"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/terminal"
)

type execFlags struct {
	create       moby.ExecCreateOptions
	interactive  bool
	detach       bool
	keys         string
	env, envFile opts.ListOpts
}

func execCommand(a *App) *cobra.Command {
	e := execFlags{env: opts.NewListOpts(opts.ValidateEnv), envFile: opts.NewListOpts(nil)}
	var cmd *cobra.Command
	cmd = a.command("exec [OPTIONS] CONTAINER COMMAND [ARG...]", count(2, -1), func(ctx context.Context, api *client.Client, args []string) error {
		e.create.Cmd = args[1:]
		return e.run(ctx, a, cmd, args[0])
	})
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&e.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVar(&e.keys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.VarP(&e.env, "env", "e", "Set environment variables")
	fs.Var(&e.envFile, "env-file", "Read in a file of environment variables")
	fs.BoolVarP(&e.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVar(&e.create.Privileged, "privileged", false, "Give extended privileges to the command")
	fs.BoolVarP(&e.create.TTY, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&e.create.User, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.StringVarP(&e.create.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func (e *execFlags) run(ctx context.Context, a *App, cmd *cobra.Command, name string) error {
	api := a.client
	env, err := opts.ReadKVEnvStrings(e.envFile.GetSlice(), e.env.GetSlice())
	if err != nil {
		return err
	}
	keys, list, err := a.detachKeys(e.keys)
	if err != nil {
		return err
	}
	o := e.create
	o.Env, o.DetachKeys = env, list
	if !e.detach {
		o.AttachStdout, o.AttachStderr, o.AttachStdin = true, true, e.interactive
		if err := needTerminal(a, e.interactive, o.TTY); err != nil {
			return err
		}
	}
	var size moby.ConsoleSize
	if t := terminalOf(a.Out); t != nil && o.TTY {
		if rows, cols, err := t.Size(); err == nil {
			size = moby.ConsoleSize{Height: rows, Width: cols}
		}
	}
	o.ConsoleSize = size
	made, err := api.ExecCreate(ctx, name, o)
	if err != nil {
		return err
	}
	if e.detach {
		_, err := api.ExecStart(ctx, made.ID, moby.ExecStartOptions{Detach: true, TTY: o.TTY, ConsoleSize: size})
		return execFailed(err)
	}
	att, err := api.ExecAttach(ctx, made.ID, moby.ExecAttachOptions{TTY: o.TTY, ConsoleSize: size})
	if err != nil {
		return execFailed(err)
	}
	defer att.Close()
	st := &terminal.Stream{Conn: att.Conn, Reader: att.Reader, CloseWrite: att.CloseWrite, TTY: o.TTY, Out: a.Out}
	if e.interactive {
		st.In = a.In
	}
	restore := func() {}
	if o.TTY {
		st.Keys = keys
		restore = a.rawTerminal(e.interactive)
		defer a.followSize(func(rows, cols uint) error {
			_, err := api.ExecResize(ctx, made.ID, moby.ExecResizeOptions{Height: rows, Width: cols})
			return err
		})()
	} else {
		st.Err = a.Err
	}
	err = st.Run(ctx)
	restore()
	if errors.Is(err, terminal.ErrDetached) {
		return nil
	}
	if err != nil && a.debug {
		a.warn("copying the command's streams: %v", err)
	}
	res, err := api.ExecInspect(ctx, made.ID, moby.ExecInspectOptions{})
	if err != nil {
		return err
	}
	if res.ExitCode != 0 {
		return exit{code: res.ExitCode}
	}
	return nil
}

// execFailed gives the exit code that says why the command could not be started.
func execFailed(err error) error {
	if err == nil {
		return nil
	}
	return exit{code: exitCodeOf(err), err: err}
}
