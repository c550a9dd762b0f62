package container

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/state"
)

// Warm runs the code of a create that changes nothing, on an example, so that a process which waits for its container
// has it in memory: what encoding/json finds out about types alone takes 0.6 ms. Nothing of it is kept.
func Warm() {
	example := spec.Example()
	example.Annotations = map[string]string{spec.RootfsAnnotation: `{"lower":["/"],"upper":"/","work":"/","options":["volatile"]}`}
	example.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write", "clone3"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}}}}
	data, err := json.Marshal(example)
	if err != nil {
		return
	}
	parsed, err := spec.Parse(data)
	if err != nil || spec.Validate(parsed) != nil {
		return
	}
	cgroup.Detect()
	json.Marshal(&state.Record{})
	c := creation{rt: &Runtime{}, opts: &CreateOptions{}, spec: parsed}
	if cfg, err := c.initConfig(&sources{}, nil, 0); err == nil {
		encodeConfig(cfg, <-compileSeccomp(parsed.Linux.Seccomp))
	}
}
