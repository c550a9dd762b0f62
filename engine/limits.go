package engine

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/model"
)

const minMemory = 6 << 20

var ulimitNames = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
	"nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

// validateResources checks limits against each other and against the machine; it fills in Docker's derived values.
func (e *Engine) validateResources(r *model.Resources) (warnings []string, err error) {
	if err := validateMemory(&r.Memory); err != nil {
		return nil, err
	}
	if err := validateCPU(&r.CPU, e.cfg.Host); err != nil {
		return nil, err
	}
	if w := r.BlockIO.Weight; w != 0 && (w < 10 || w > 1000) {
		return nil, invalid("Range of blkio weight is from 10 to 1000: it is %d", w)
	}
	for _, w := range r.BlockIO.WeightDevice {
		if w.Weight != 0 && (w.Weight < 10 || w.Weight > 1000) {
			return nil, invalid("Range of blkio weight is from 10 to 1000: it is %d for %s", w.Weight, w.Path)
		}
	}
	if r.OomScoreAdj < -1000 || r.OomScoreAdj > 1000 {
		return nil, invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", r.OomScoreAdj)
	}
	for i, u := range r.Ulimits {
		switch {
		case !slices.Contains(ulimitNames, u.Name):
			return nil, invalid("invalid ulimit type: %s; known are: %s", u.Name, strings.Join(ulimitNames, ", "))
		case u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard):
			return nil, invalid("ulimit soft limit must be less than or equal to hard limit: %s has %d > %d", u.Name, u.Soft, u.Hard)
		case slices.ContainsFunc(r.Ulimits[:i], func(o model.Ulimit) bool { return o.Name == u.Name }):
			return nil, invalid("ulimit %s is given twice", u.Name)
		}
	}
	for _, d := range r.Devices {
		if d.PathOnHost == "" {
			return nil, invalid("a device without a path on the host; want --device /dev/NAME")
		}
		if p := d.Permissions; p != "" && strings.Trim(p, "rwm") != "" {
			return nil, invalid("invalid device permissions %q of %s: want some of r, w, m", p, d.PathOnHost)
		}
	}
	if r.Memory.OomKillDisable != nil && *r.Memory.OomKillDisable {
		if e.cfg.Host.CgroupV2 {
			warnings = append(warnings, "OomKillDisable has no meaning with cgroup v2; it is ignored.")
			r.Memory.OomKillDisable = nil
		} else if r.Memory.Limit == 0 {
			warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
		}
	}
	if r.Memory.Swappiness != nil && e.cfg.Host.CgroupV2 && *r.Memory.Swappiness != -1 {
		warnings = append(warnings, "memory swappiness has no meaning with cgroup v2; it is ignored.")
		r.Memory.Swappiness = nil
	}
	return warnings, nil
}

func validateMemory(m *model.MemoryResources) error {
	switch {
	case m.Limit < 0 || m.Limit > 0 && m.Limit < minMemory:
		return invalid("Minimum memory limit allowed is 6MB: it is %d bytes", m.Limit)
	case m.Swap > 0 && m.Limit == 0:
		return invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case m.Swap < -1:
		return invalid("invalid memory-swap limit %d: want bytes, or -1 for no limit", m.Swap)
	case m.Limit > 0 && m.Swap > 0 && m.Swap < m.Limit:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage: memory and swap together are %d bytes, memory alone %d", m.Swap, m.Limit)
	case m.Swappiness != nil && (*m.Swappiness < -1 || *m.Swappiness > 100):
		return invalid("Invalid value: %d, valid memory swappiness range is 0-100", *m.Swappiness)
	case m.Reservation < 0 || m.Reservation > 0 && m.Reservation < minMemory:
		return invalid("Minimum memory reservation allowed is 6MB: it is %d bytes", m.Reservation)
	case m.Limit > 0 && m.Reservation > m.Limit:
		return invalid("Minimum memory limit can not be less than memory reservation limit, see usage: the limit is %d, the reservation %d bytes", m.Limit, m.Reservation)
	}
	if m.Limit > 0 && m.Swap == 0 {
		m.Swap = 2 * m.Limit // as Docker: as much swap as memory
	}
	return nil
}

func validateCPU(c *model.CPUResources, h ocispec.Host) error {
	cpus := h.CPUs
	switch {
	case c.NanoCPUs > 0 && c.Period > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
	case c.NanoCPUs > 0 && c.Quota > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
	case c.NanoCPUs < 0 || cpus > 0 && c.NanoCPUs > int64(cpus)*1e9 || c.NanoCPUs > 0 && c.NanoCPUs < 1e7:
		return invalid("Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case c.Shares < 0:
		return invalid("invalid CPU shares (%d): value must be a positive integer", c.Shares)
	case c.Period != 0 && (c.Period < 1000 || c.Period > 1000000):
		return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000): it is %d", c.Period)
	case c.Quota > 0 && c.Quota < 1000:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000): it is %d", c.Quota)
	case c.RealtimeRuntime != 0 && c.RealtimePeriod != 0 && c.RealtimeRuntime > c.RealtimePeriod:
		return invalid("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	if err := validateCPUSet("cpus", "CPUs", c.CpusetCpus, cpus); err != nil {
		return err
	}
	return validateCPUSet("mems", "memory nodes", c.CpusetMems, h.MemoryNodes)
}

// validateCPUSet reads "0-2,4"; limit 0 does not check the numbers.
func validateCPUSet(what, long, set string, limit int) error {
	if set == "" {
		return nil
	}
	for part := range strings.SplitSeq(set, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		first, err1 := strconv.ParseUint(a, 10, 16)
		last, err2 := strconv.ParseUint(b, 10, 16)
		if err1 != nil || err2 != nil || first > last {
			return invalid("Invalid value %s for cpuset %s: want numbers and ranges, such as 0-2,4", set, what)
		}
		if limit > 0 && int(last) >= limit {
			return invalid("Requested %s are not available - requested %s, available: 0-%d", long, set, limit-1)
		}
	}
	return nil
}
