package supervise

import (
	"path/filepath"
	"time"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/runtime/spec"
)

// killedCode is the exit code of a container that was killed because its supervisor was.
const killedCode = 137

// reap takes away what a killed supervisor left: the container's processes first (nobody reads their output, and nobody
// would learn their exit status), then its cgroup and the runtime's state. It writes exit.json when there is none.
func reap(dir string, pick func(*spec.SupervisorConfig) (Runner, error)) error {
	var cfg spec.SupervisorConfig
	if err := readJSON(filepath.Join(dir, spec.SupervisorFile), &cfg); err != nil {
		return err
	}
	runner, err := pick(&cfg)
	if err != nil {
		return err
	}
	if err := runner.Reap(dir, &cfg); err != nil {
		return err
	}
	path := filepath.Join(dir, spec.ExitFile)
	var exit spec.ExitStatus
	if readJSON(path, &exit) == nil {
		return nil
	}
	return atomicfile.WriteJSON(path, spec.ExitStatus{Code: killedCode, Signal: 9, At: time.Now().UTC(),
		Reason: "the container's supervisor was killed (is the machine short of memory?), so the container was killed too"},
		0o600, atomicfile.Volatile)
}

// ReadState reads the state.json of a supervisor's directory.
func ReadState(dir string) (*spec.SupervisorState, error) {
	var state spec.SupervisorState
	if err := readJSON(filepath.Join(dir, spec.StateFile), &state); err != nil {
		return nil, err
	}
	return &state, nil
}

// SameProcess says whether the init process of a state is still there; its pid alone may be another's by now.
func SameProcess(state *spec.SupervisorState) bool {
	return state.Pid > 0 && state.PidStart != 0 && startTime(state.Pid) == state.PidStart
}
