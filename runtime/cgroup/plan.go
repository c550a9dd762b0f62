package cgroup

import (
	"fmt"
	"math"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

// write is one value for one file of one controller.
type write struct {
	controller string // as on the kind of hierarchy it goes to: "blkio" on v1, "io" on v2; "" is the unified core
	file       string
	value      string
	option     string // what the user asked for, in the specification's words
	check      string // before writing, this file's number must be below value (memory.checkBeforeUpdate)
}

// plan is everything to be written, in order. Pure data, made from the resources alone.
type plan struct {
	host    *Host
	fresh   bool // the group was just made: nothing has to be reset
	writes  []write
	trouble error
}

// uses says whether something is to be written to hierarchy x.
func (p *plan) uses(x *Hierarchy) bool {
	for _, w := range p.writes {
		if x.has(w.controller) || w.controller == "" && x.Unified {
			return true
		}
	}
	return false
}

func (p *plan) needs(controller string) bool {
	return slices.ContainsFunc(p.writes, func(w write) bool { return w.controller == controller })
}

func (p *plan) add(controller, file, value, option string) {
	p.writes = append(p.writes, write{controller: controller, file: file, value: value, option: option})
}

func (p *plan) refuse(kind errs.Kind, format string, args ...any) {
	if p.trouble == nil {
		p.trouble = errs.New(kind, format, args...)
	}
}

// on says whether the controller is there, and on which kind of hierarchy; the option is refused when it is not.
func (p *plan) on(controller, option string) (v2, ok bool) {
	i := p.host.find(controller)
	if i < 0 {
		p.refuse(errs.Unsupported, "%s: this host has no %s controller for control groups: enable it in the kernel "+
			"(CONFIG_*, cgroup_disable= on its command line) or mount it, or leave the option out", option, controller)
		return false, false
	}
	return p.host.Hierarchies[i].Unified, true
}

// plan turns resources into writes for this host. Devices are apart: see devices.go.
func (h *Host) plan(res *specs.LinuxResources, fresh bool) (*plan, error) {
	p := &plan{host: h, fresh: fresh}
	if res == nil {
		return p, nil
	}
	p.memory(res.Memory)
	p.cpu(res.CPU)
	p.cpuset(res.CPU)
	p.pids(res.Pids)
	p.blockIO(res.BlockIO)
	p.hugetlb(res.HugepageLimits)
	p.rdma(res.Rdma)
	p.network(res.Network)
	p.unified(res.Unified)
	return p, p.trouble
}

// Ignored lists the resources that are asked for and that no kernel of today limits; the callers warn of them.
func Ignored(res *specs.LinuxResources) (out []string) {
	if res == nil || res.Memory == nil {
		return nil
	}
	if m := res.Memory; m.Kernel != nil && *m.Kernel > 0 { // deprecated; looked at only to speak of it
		out = append(out, "memory.kernel: kernels since 5.4 count kernel memory within memory.limit and have no limit of its own "+
			"for it; the option has no effect")
	}
	return out
}

func set[T comparable](v *T) bool {
	var zero T
	return v != nil && *v != zero
}

// limit writes -1 as the kernel wants it.
func limit(v int64, unlimited string) string {
	if v < 0 {
		return unlimited
	}
	return strconv.FormatInt(v, 10)
}

func (p *plan) memory(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	if !set(m.KernelTCP) && !set(m.Limit) && !set(m.Reservation) && !set(m.Swap) && m.Swappiness == nil && !set(m.DisableOOMKiller) {
		return
	}
	v2, ok := p.on("memory", "memory")
	if !ok {
		return
	}
	if set(m.Limit) && set(m.Swap) && *m.Swap > 0 && *m.Limit > *m.Swap {
		p.refuse(errs.Invalid, "memory.swap %d is less than memory.limit %d: it is the sum of memory and swap and must be at "+
			"least the limit", *m.Swap, *m.Limit)
		return
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		p.refuse(errs.Invalid, "memory.swappiness %d: it goes from 0 to 100", *m.Swappiness)
	}
	if v2 {
		p.memoryV2(m)
	} else {
		p.memoryV1(m)
	}
	if i := len(p.writes) - 1; set(m.CheckBeforeUpdate) && set(m.Limit) && *m.Limit > 0 {
		for ; i >= 0; i-- {
			switch p.writes[i].file {
			case "memory.max":
				p.writes[i].check = "memory.current"
			case "memory.limit_in_bytes":
				p.writes[i].check = "memory.usage_in_bytes"
			}
		}
	}
}

func (p *plan) memoryV1(m *specs.LinuxMemory) {
	if set(m.Limit) {
		p.add("memory", "memory.limit_in_bytes", limit(*m.Limit, "-1"), "memory.limit")
	}
	switch {
	case set(m.Swap):
		p.add("memory", "memory.memsw.limit_in_bytes", limit(*m.Swap, "-1"), "memory.swap")
	case set(m.Limit) && *m.Limit < 0 && !p.fresh:
		// Unlimited memory with a limited sum makes no sense, and the kernel refuses it.
		p.add("memory", "memory.memsw.limit_in_bytes", "-1", "memory.limit")
	}
	if set(m.Reservation) {
		p.add("memory", "memory.soft_limit_in_bytes", limit(*m.Reservation, "-1"), "memory.reservation")
	}
	if m.Swappiness != nil {
		p.add("memory", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10), "memory.swappiness")
	}
	if set(m.KernelTCP) {
		p.add("memory", "memory.kmem.tcp.limit_in_bytes", limit(*m.KernelTCP, "-1"), "memory.kernelTCP")
	}
	if m.DisableOOMKiller != nil && (*m.DisableOOMKiller || !p.fresh) {
		p.add("memory", "memory.oom_control", map[bool]string{true: "1", false: "0"}[*m.DisableOOMKiller], "memory.disableOOMKiller")
	}
}

func (p *plan) memoryV2(m *specs.LinuxMemory) {
	if m.KernelTCP != nil && *m.KernelTCP > 0 {
		p.refuse(errs.Unsupported, "memory.kernelTCP: cgroup v2 counts the memory of sockets within memory.limit and has no "+
			"limit of its own for it: leave it out")
	}
	if m.Swappiness != nil {
		p.refuse(errs.Unsupported, "memory.swappiness: cgroup v2 has no swappiness of a group: leave it out; to keep the "+
			"container out of swap set memory.swap equal to memory.limit")
	}
	if set(m.DisableOOMKiller) {
		p.refuse(errs.Unsupported, "memory.disableOOMKiller: cgroup v2 cannot switch the OOM killer off: leave it out; "+
			"process.oomScoreAdj -1000 protects a process, memory.oom.group in unified kills all or none")
	}
	swap, ok := int64(0), false
	switch {
	case set(m.Swap) && *m.Swap < 0, !set(m.Swap) && set(m.Limit) && *m.Limit < 0:
		swap, ok = -1, true
	case set(m.Swap) && (!set(m.Limit) || *m.Limit < 0):
		p.refuse(errs.Invalid, "memory.swap %d without a memory.limit: cgroup v2 limits swap alone, so the sum of memory and "+
			"swap has no meaning without the limit: give both", *m.Swap)
	case set(m.Swap):
		swap, ok = *m.Swap-*m.Limit, true
	}
	if set(m.Limit) {
		p.add("memory", "memory.max", limit(*m.Limit, "max"), "memory.limit")
	}
	if ok {
		p.add("memory", "memory.swap.max", limit(swap, "max"), "memory.swap")
	}
	if set(m.Reservation) {
		p.add("memory", "memory.low", limit(*m.Reservation, "max"), "memory.reservation")
	}
}

// The kernel's bounds of cpu.shares; it clamps silently, we say so.
const minShares, maxShares = 2, 262144

func (p *plan) cpu(c *specs.LinuxCPU) {
	if c == nil || !set(c.Shares) && !set(c.Quota) && !set(c.Period) && c.Burst == nil && !set(c.RealtimeRuntime) &&
		!set(c.RealtimePeriod) && c.Idle == nil {
		return
	}
	v2, ok := p.on("cpu", "cpu")
	if !ok {
		return
	}
	if set(c.Shares) && (*c.Shares < minShares || *c.Shares > maxShares) {
		p.refuse(errs.Invalid, "cpu.shares %d: the allowed cpu-shares go from %d to %d", *c.Shares, minShares, maxShares)
		return
	}
	if c.Idle != nil && (*c.Idle < 0 || *c.Idle > 1) {
		p.refuse(errs.Invalid, "cpu.idle %d: it is 0 or 1", *c.Idle)
		return
	}
	if v2 {
		p.cpuV2(c)
		return
	}
	u := func(v uint64) string { return strconv.FormatUint(v, 10) }
	if set(c.Shares) {
		p.add("cpu", "cpu.shares", u(*c.Shares), "cpu.shares")
	}
	// Period, quota and burst bound each other; apply tries what was refused again after the rest.
	if set(c.Period) {
		p.add("cpu", "cpu.cfs_period_us", u(*c.Period), "cpu.period")
	}
	if set(c.Quota) {
		p.add("cpu", "cpu.cfs_quota_us", limit(*c.Quota, "-1"), "cpu.quota")
	}
	if c.Burst != nil && (*c.Burst != 0 || !p.fresh) {
		p.add("cpu", "cpu.cfs_burst_us", u(*c.Burst), "cpu.burst")
	}
	if set(c.RealtimePeriod) {
		p.add("cpu", "cpu.rt_period_us", u(*c.RealtimePeriod), "cpu.realtimePeriod")
	}
	if set(c.RealtimeRuntime) {
		p.add("cpu", "cpu.rt_runtime_us", limit(*c.RealtimeRuntime, "-1"), "cpu.realtimeRuntime")
	}
	if c.Idle != nil && (*c.Idle != 0 || !p.fresh) {
		p.add("cpu", "cpu.idle", strconv.FormatInt(*c.Idle, 10), "cpu.idle")
	}
}

func (p *plan) cpuV2(c *specs.LinuxCPU) {
	if set(c.RealtimeRuntime) || set(c.RealtimePeriod) {
		p.refuse(errs.Unsupported, "cpu.realtimeRuntime and cpu.realtimePeriod: cgroup v2 has no realtime bandwidth of a "+
			"group: leave them out")
	}
	if set(c.Shares) {
		p.add("cpu", "cpu.weight", strconv.FormatUint(SharesToWeight(*c.Shares), 10), "cpu.shares")
	}
	if set(c.Quota) || set(c.Period) {
		value := "max"
		if set(c.Quota) && *c.Quota > 0 {
			value = strconv.FormatInt(*c.Quota, 10)
		}
		switch {
		case set(c.Period) && !set(c.Quota) && !p.fresh:
			// Only the period changes: the kernel keeps the quota when the first word is left; read by apply.
			value = keepFirst + strconv.FormatUint(*c.Period, 10)
		case set(c.Period):
			value += " " + strconv.FormatUint(*c.Period, 10)
		}
		p.add("cpu", "cpu.max", value, "cpu.quota/period")
	}
	if c.Burst != nil && (*c.Burst != 0 || !p.fresh) {
		p.add("cpu", "cpu.max.burst", strconv.FormatUint(*c.Burst, 10), "cpu.burst")
	}
	if c.Idle != nil && (*c.Idle != 0 || !p.fresh) {
		p.add("cpu", "cpu.idle", strconv.FormatInt(*c.Idle, 10), "cpu.idle")
	}
}

// keepFirst in front of a value stands for the file's present first word.
const keepFirst = "\x00keep "

// SharesToWeight turns cgroup v1 cpu.shares (2..262144, default 1024) into cgroup v2 cpu.weight (1..10000, default
// 100). The curve through the three points is the one that runc 1.3, crun 1.23 and systemd's users agreed on, so that
// a container gets the same share whoever starts it.
func SharesToWeight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}

func (p *plan) cpuset(c *specs.LinuxCPU) {
	if c == nil || c.Cpus == "" && c.Mems == "" {
		return
	}
	if _, ok := p.on("cpuset", "cpu.cpus/cpu.mems"); !ok {
		return
	}
	if c.Cpus != "" {
		p.add("cpuset", "cpuset.cpus", c.Cpus, "cpu.cpus")
	}
	if c.Mems != "" {
		p.add("cpuset", "cpuset.mems", c.Mems, "cpu.mems")
	}
}

func (p *plan) pids(c *specs.LinuxPids) {
	if c == nil || c.Limit == nil || p.fresh && *c.Limit < 0 {
		return
	}
	if _, ok := p.on("pids", "pids.limit"); !ok {
		return
	}
	v := *c.Limit
	if v == 0 {
		v = 1 // a group that may hold no process cannot hold the first one; runc does the same
	}
	p.add("pids", "pids.max", limit(v, "max"), "pids.limit")
}

// blkioWeight bounds, from the kernel's block/blk-cgroup.
const minBlkioWeight, maxBlkioWeight = 10, 1000

func (p *plan) blockIO(b *specs.LinuxBlockIO) {
	if b == nil || !set(b.Weight) && !set(b.LeafWeight) && len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+
		len(b.ThrottleWriteBpsDevice)+len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) == 0 {
		return
	}
	controller, v2 := "blkio", false
	if p.host.find("blkio") < 0 && p.host.find("io") >= 0 {
		controller, v2 = "io", true
	}
	if _, ok := p.on(controller, "blockIO"); !ok {
		return
	}
	if set(b.LeafWeight) || slices.ContainsFunc(b.WeightDevice, func(d specs.LinuxWeightDevice) bool { return set(d.LeafWeight) }) {
		p.refuse(errs.Unsupported, "blockIO.leafWeight: it went from the kernel with the CFQ scheduler (5.0): leave it out")
	}
	weight := func(w uint16, what string) {
		if w < minBlkioWeight || w > maxBlkioWeight {
			p.refuse(errs.Invalid, "%s %d: block I/O weights go from %d to %d", what, w, minBlkioWeight, maxBlkioWeight)
		}
	}
	file := map[bool]string{true: "io.bfq.weight", false: "blkio.bfq.weight"}[v2]
	if set(b.Weight) {
		weight(*b.Weight, "blockIO.weight")
		p.add(controller, file, strconv.Itoa(int(*b.Weight)), "blockIO.weight")
	}
	for _, d := range b.WeightDevice {
		if !set(d.Weight) {
			continue
		}
		weight(*d.Weight, "blockIO.weightDevice.weight")
		name := file
		if !v2 {
			name = "blkio.bfq.weight_device"
		}
		p.add(controller, name, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight), "blockIO.weightDevice")
	}
	for _, t := range [...]struct {
		devices      []specs.LinuxThrottleDevice
		v1, v2, name string
	}{
		{b.ThrottleReadBpsDevice, "read_bps", "rbps", "throttleReadBpsDevice"},
		{b.ThrottleWriteBpsDevice, "write_bps", "wbps", "throttleWriteBpsDevice"},
		{b.ThrottleReadIOPSDevice, "read_iops", "riops", "throttleReadIOPSDevice"},
		{b.ThrottleWriteIOPSDevice, "write_iops", "wiops", "throttleWriteIOPSDevice"},
	} {
		for _, d := range t.devices {
			dev, rate := fmt.Sprintf("%d:%d", d.Major, d.Minor), strconv.FormatUint(d.Rate, 10)
			switch {
			case v2 && d.Rate == 0:
				p.add(controller, "io.max", dev+" "+t.v2+"=max", "blockIO."+t.name)
			case v2:
				p.add(controller, "io.max", dev+" "+t.v2+"="+rate, "blockIO."+t.name)
			default:
				p.add(controller, "blkio.throttle."+t.v1+"_device", dev+" "+rate, "blockIO."+t.name)
			}
		}
	}
}

func (p *plan) hugetlb(limits []specs.LinuxHugepageLimit) {
	for _, l := range limits {
		v2, ok := p.on("hugetlb", "hugepageLimits")
		if !ok {
			return
		}
		if l.Pagesize == "" || strings.ContainsAny(l.Pagesize, "/.\n\x00 ") {
			p.refuse(errs.Invalid, "hugepageLimits page size %q: write it as the kernel does, for example 2MB or 1GB", l.Pagesize)
			return
		}
		v, suffix := strconv.FormatUint(l.Limit, 10), "limit_in_bytes"
		if v2 {
			suffix = "max"
		}
		p.add("hugetlb", "hugetlb."+l.Pagesize+"."+suffix, v, "hugepageLimits "+l.Pagesize)
		// Reservations too (kernel 5.7+), or a container could reserve what it may not use and die of SIGBUS.
		p.add("hugetlb", "hugetlb."+l.Pagesize+".rsvd."+suffix, v, optional)
	}
}

// optional as a write's option: where the kernel has no such file, nothing is lost.
const optional = ""

func (p *plan) rdma(devices map[string]specs.LinuxRdma) {
	names := make([]string, 0, len(devices))
	for n := range devices {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if _, ok := p.on("rdma", "rdma"); !ok {
			return
		}
		d := devices[n]
		if n == "" || strings.ContainsAny(n, " \n\x00") {
			p.refuse(errs.Invalid, "rdma device name %q", n)
			return
		}
		value := n
		if d.HcaHandles != nil {
			value += fmt.Sprintf(" hca_handle=%d", *d.HcaHandles)
		}
		if d.HcaObjects != nil {
			value += fmt.Sprintf(" hca_object=%d", *d.HcaObjects)
		}
		if value != n {
			p.add("rdma", "rdma.max", value, "rdma")
		}
	}
}

func (p *plan) network(n *specs.LinuxNetwork) {
	if n == nil {
		return
	}
	if set(n.ClassID) {
		if _, ok := p.on("net_cls", "network.classID"); ok {
			p.add("net_cls", "net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10), "network.classID")
		}
	}
	for _, prio := range n.Priorities {
		if _, ok := p.on("net_prio", "network.priorities"); !ok {
			return
		}
		if prio.Name == "" || strings.ContainsAny(prio.Name, " \n\x00") {
			p.refuse(errs.Invalid, "network.priorities interface name %q", prio.Name)
			return
		}
		p.add("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", prio.Name, prio.Priority), "network.priorities")
	}
}

// unified passes cgroup v2 files through. On hybrid hosts the cgroup2 hierarchy has its own files (cgroup.*, pressure).
func (p *plan) unified(files map[string]string) {
	if len(files) == 0 {
		return
	}
	i := p.host.unified()
	if i < 0 {
		p.refuse(errs.Unsupported, "unified resources name cgroup v2 files, and this host has no cgroup v2: use the options "+
			"of cgroup v1, or mount cgroup2")
		return
	}
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		controller, _, dotted := strings.Cut(n, ".")
		if !dotted || controller == "" || path.Base(n) != n || strings.ContainsAny(n, "\n\x00") {
			p.refuse(errs.Invalid, "unified resource %q is not the name of a cgroup v2 file, such as memory.high", n)
			return
		}
		switch {
		case n == "cgroup.procs" || n == "cgroup.threads" || n == "cgroup.kill" || n == "cgroup.freeze" ||
			n == "cgroup.subtree_control" || n == "cgroup.type":
			p.refuse(errs.Invalid, "unified resource %q is not a limit: it steers the group itself", n)
			return
		case controller == "cgroup":
			controller = ""
		case !p.host.Hierarchies[i].has(controller):
			p.refuse(errs.Unsupported, "unified resource %q: the %s controller is not on this host's cgroup v2 hierarchy (%s); "+
				"it has: %s", n, controller, p.host.Mode, strings.Join(p.host.Hierarchies[i].Controllers, " "))
			return
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(files[n], "\n"), "\n") {
			p.add(controller, n, line, "unified."+n)
		}
	}
}
