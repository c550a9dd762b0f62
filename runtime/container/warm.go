package container

import (
	"encoding/json"

	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/state"
)

// warmConfig has a bit of everything that a configuration usually has.
const warmConfig = `{"ociVersion":"1.2.0","hostname":"warm","root":{"path":"/"},
"process":{"user":{"uid":0,"gid":0},"args":["/"],"env":["PATH=/"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"]},"oomScoreAdj":0},
"mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec"]}],
"annotations":{"` + spec.RootfsAnnotation + `":"{\"lower\":[\"/\"],\"upper\":\"/\",\"work\":\"/\",\"options\":[\"volatile\"]}"},
"linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"uts"}],"cgroupsPath":"/warm","maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],
"resources":{"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":1000}},"seccomp":{"defaultAction":"SCMP_ACT_ERRNO",
"architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","write","clone3"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}}}`

// Warm runs the code of a create that changes nothing, on an example, so that a process which waits for its container
// has it in memory. Nothing of it is kept.
func Warm() {
	parsed, err := spec.Parse([]byte(warmConfig))
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
