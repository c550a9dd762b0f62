package ocispec

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// cpuPeriod is the kernel's default scheduling period, in microseconds.
const cpuPeriod = 100_000

// Resources are the cgroup limits, without device rules. block gives the numbers of the block devices by path.
func Resources(r model.Resources, block map[string]specs.LinuxBlockIODevice, defaultPids int64) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Memory: memory(r.Memory), CPU: cpu(r.CPU)}
	pids := defaultPids
	if r.PidsLimit != nil {
		pids = *r.PidsLimit
	}
	if pids > 0 {
		out.Pids = &specs.LinuxPids{Limit: &pids}
	} else if r.PidsLimit != nil {
		unlimited := int64(-1)
		out.Pids = &specs.LinuxPids{Limit: &unlimited}
	}
	var err error
	out.BlockIO, err = blockIO(r.BlockIO, block)
	return out, err
}

func memory(m model.MemoryResources) *specs.LinuxMemory {
	out := &specs.LinuxMemory{DisableOOMKiller: m.OomKillDisable}
	if m.OomKillDisable != nil && !*m.OomKillDisable {
		out.DisableOOMKiller = nil
	}
	set := out.DisableOOMKiller != nil
	for _, f := range []struct {
		to   **int64
		from int64
	}{{&out.Limit, m.Limit}, {&out.Reservation, m.Reservation}, {&out.Swap, m.Swap}} {
		if f.from != 0 {
			*f.to, set = &f.from, true
		}
	}
	if m.Swappiness != nil && *m.Swappiness >= 0 {
		v := uint64(*m.Swappiness)
		out.Swappiness, set = &v, true
	}
	if !set {
		return nil
	}
	return out
}

func cpu(c model.CPUResources) *specs.LinuxCPU {
	out := &specs.LinuxCPU{Cpus: c.CpusetCpus, Mems: c.CpusetMems}
	set := c.CpusetCpus != "" || c.CpusetMems != ""
	if c.Shares > 0 {
		v := uint64(c.Shares)
		out.Shares, set = &v, true
	}
	if c.NanoCPUs > 0 {
		period, quota := uint64(cpuPeriod), c.NanoCPUs*cpuPeriod/1e9
		out.Period, out.Quota, set = &period, &quota, true
	}
	if c.Period > 0 {
		v := uint64(c.Period)
		out.Period, set = &v, true
	}
	if c.Quota != 0 {
		out.Quota, set = &c.Quota, true
	}
	if c.RealtimePeriod > 0 {
		v := uint64(c.RealtimePeriod)
		out.RealtimePeriod, set = &v, true
	}
	if c.RealtimeRuntime != 0 {
		out.RealtimeRuntime, set = &c.RealtimeRuntime, true
	}
	if !set {
		return nil
	}
	return out
}

func blockIO(b model.BlockIOResources, block map[string]specs.LinuxBlockIODevice) (*specs.LinuxBlockIO, error) {
	out := &specs.LinuxBlockIO{}
	set := false
	if b.Weight > 0 {
		out.Weight, set = &b.Weight, true
	}
	for _, w := range b.WeightDevice {
		dev, ok := block[w.Path]
		if !ok {
			return nil, errs.New(errs.Invalid, "block device %q of the weight was not looked up", w.Path)
		}
		d := specs.LinuxWeightDevice{Weight: &w.Weight}
		d.Major, d.Minor = dev.Major, dev.Minor
		out.WeightDevice, set = append(out.WeightDevice, d), true
	}
	for _, t := range []struct {
		to   *[]specs.LinuxThrottleDevice
		from []model.ThrottleDevice
	}{
		{&out.ThrottleReadBpsDevice, b.DeviceReadBps}, {&out.ThrottleWriteBpsDevice, b.DeviceWriteBps},
		{&out.ThrottleReadIOPSDevice, b.DeviceReadIOps}, {&out.ThrottleWriteIOPSDevice, b.DeviceWriteIOps},
	} {
		for _, f := range t.from {
			dev, ok := block[f.Path]
			if !ok {
				return nil, errs.New(errs.Invalid, "block device %q of the limit was not looked up", f.Path)
			}
			d := specs.LinuxThrottleDevice{Rate: f.Rate}
			d.Major, d.Minor = dev.Major, dev.Minor
			*t.to, set = append(*t.to, d), true
		}
	}
	if !set {
		return nil, nil
	}
	return out, nil
}

// baseRules are the Docker Engine's device rules: nothing, but making device nodes, and the usual harmless ones.
func baseRules() []specs.LinuxDeviceCgroup {
	rule := func(allow bool, major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule(true, 1, 5), rule(true, 1, 3), rule(true, 1, 9), rule(true, 1, 8), // zero null urandom random
		rule(true, 5, 0), rule(true, 5, 1), // tty console
		rule(false, 10, 229), // fuse
	}
}

func deviceRules(privileged bool, own []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	if privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	return append(baseRules(), own...)
}

// ParseDeviceRule reads a --device-cgroup-rule such as "c 13:* rwm".
func ParseDeviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	bad := errs.New(errs.Invalid, "invalid device cgroup rule format: '%s': want TYPE MAJOR:MINOR ACCESS, such as 'c 13:* rwm'", rule)
	fields := strings.Split(rule, " ")
	if len(fields) != 3 || len(fields[0]) != 1 || !strings.Contains("abc", fields[0]) {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	access := fields[2]
	if !ok || access == "" || len(access) > 3 || strings.Trim(access, "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	out := specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Access: access}
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &out.Major}, {minor, &out.Minor}} {
		v := int64(-1)
		if n.text != "*" {
			u, err := strconv.ParseUint(n.text, 10, 32)
			if err != nil {
				return specs.LinuxDeviceCgroup{}, bad
			}
			v = int64(u)
		}
		*n.to = &v
	}
	return out, nil
}
