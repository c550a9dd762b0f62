package cgroup

import "time"

// Stats is one reading of everything the groups count. What a host does not count is zero; limits that are not set
// are Unlimited.
type Stats struct {
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	IO      []IOStats // one per block device, by device number
	Hugetlb map[string]HugetlbStats
	RDMA    map[string]RDMAStats
	PSI     *PSIStats // nil where the kernel keeps no pressure figures (needs cgroup2 and CONFIG_PSI)
}

// Unlimited is the value of limits that are not set.
const Unlimited = ^uint64(0)

// CPUStats are in nanoseconds since the group was made.
type CPUStats struct {
	Usage, User, System uint64
	PerCPU              []uint64 // v1 only
	Periods             uint64   // enforcement periods gone by with a quota set
	ThrottledPeriods    uint64
	Throttled           uint64 // nanoseconds
	Bursts              uint64
	BurstTime           uint64
}

// MemoryStats are in bytes.
type MemoryStats struct {
	Usage, Peak, Limit   uint64
	SwapUsage, SwapLimit uint64 // v1: memory plus swap, as Docker shows it; v2: swap alone
	SwapPeak             uint64
	FailCount            uint64 // v1: how often the limit was hit; v2: memory.events max
	Anon, File           uint64 // anonymous and page cache
	InactiveFile         uint64
	OOMKills             uint64
	Detail               map[string]uint64 // memory.stat as the kernel names it
}

// WorkingSet is what docker stats and kubectl top show as used: usage without cache that can go at once.
func (m MemoryStats) WorkingSet() uint64 {
	if m.InactiveFile >= m.Usage {
		return 0
	}
	return m.Usage - m.InactiveFile
}

// PidsStats counts threads, as the pids controller does.
type PidsStats struct{ Current, Limit uint64 }

// IOStats is the traffic with one block device since the group was made.
type IOStats struct {
	Major, Minor                    uint64
	ReadBytes, WriteBytes, Discards uint64 // Discards in bytes
	Reads, Writes, DiscardOps       uint64
}

// HugetlbStats is one page size's; sizes are in bytes.
type HugetlbStats struct{ Usage, Peak, Limit, FailCount uint64 }

// RDMAStats is one device's.
type RDMAStats struct{ Handles, HandleLimit, Objects, ObjectLimit uint64 }

// PSIStats is how long tasks of the container waited for each resource (Documentation/accounting/psi.rst).
type PSIStats struct{ CPU, Memory, IO Pressure }

// Pressure has the time in which some, and in which all, tasks waited.
type Pressure struct{ Some, Full PressureLine }

// PressureLine has percentages over the last 10, 60 and 300 seconds.
type PressureLine struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}
