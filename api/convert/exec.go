package convert

import (
	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/model"
)

// Exec is the answer of GET /exec/{id}/json.
func Exec(e *model.Exec) container.ExecInspectResponse {
	privileged := e.Spec.Privileged
	out := container.ExecInspectResponse{
		ID: e.ID, Running: e.Running, ExitCode: e.ExitCode, OpenStdin: e.Spec.AttachStdin, OpenStderr: e.Spec.AttachStderr,
		OpenStdout: e.Spec.AttachStdout, CanRemove: e.Started && !e.Running, ContainerID: e.ContainerID,
		DetachKeys: []byte(e.Spec.DetachKeys), Pid: e.Pid,
		ProcessConfig: &container.ExecProcessConfig{Tty: e.Spec.Tty, Arguments: []string{}, Privileged: &privileged, User: e.Spec.User},
	}
	if len(e.Spec.Cmd) > 0 {
		out.ProcessConfig.Entrypoint, out.ProcessConfig.Arguments = e.Spec.Cmd[0], orEmpty(e.Spec.Cmd[1:])
	}
	return out
}
