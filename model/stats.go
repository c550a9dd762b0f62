package model

import "time"

// Stats is one reading of what a container uses.
type Stats struct {
	Read     time.Time
	CPU      CPUStats
	Memory   MemoryStats
	Pids     PidsStats
	BlkIO    BlkIOStats
	Networks map[string]NetworkStats // by interface
}

// CPUStats are in nanoseconds since the container's start.
type CPUStats struct {
	Total, User, System uint64
	PerCPU              []uint64
	SystemTotal         uint64 // of the whole machine, all processors
	Online              uint32
	Periods, Throttled  uint64
	ThrottledTime       uint64
}

// MemoryStats are in bytes.
type MemoryStats struct {
	Usage, MaxUsage, Limit uint64
	FailCount              uint64
	Stats                  map[string]uint64 // the kernel's own names
}

// PidsStats count tasks.
type PidsStats struct{ Current, Limit uint64 }

// BlkIOStats are block device figures by the kernel's list names of cgroup v1.
type BlkIOStats map[string][]BlkIOEntry

// BlkIOEntry is one figure.
type BlkIOEntry struct {
	Major, Minor uint64
	Op           string
	Value        uint64
}

// NetworkStats are an interface's counters.
type NetworkStats struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}
