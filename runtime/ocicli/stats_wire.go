package ocicli

import "github.com/shoalhq/shoal/runtime/cgroup"

// The shape of `events --stats` is runc's (its types/events.go), which containerd's and podman's users parse.

type stats struct {
	CPU     cpuStats                `json:"cpu"`
	Memory  memoryStats             `json:"memory"`
	Pids    pidsStats               `json:"pids"`
	Blkio   blkioStats              `json:"blkio"`
	Hugetlb map[string]hugetlbStats `json:"hugetlb"`
}

type cpuStats struct {
	Usage struct {
		Total  uint64   `json:"total"`
		Percpu []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods"`
		ThrottledPeriods uint64 `json:"throttledPeriods"`
		ThrottledTime    uint64 `json:"throttledTime"`
	} `json:"throttling"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`
	Failcnt uint64 `json:"failcnt"`
}

type memoryStats struct {
	Cache uint64            `json:"cache"`
	Usage memoryEntry       `json:"usage"`
	Swap  memoryEntry       `json:"swap"`
	Raw   map[string]uint64 `json:"raw,omitempty"`
}

type pidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

type blkioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

type blkioStats struct {
	ServiceBytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []blkioEntry `json:"ioServicedRecursive,omitempty"`
}

type hugetlbStats struct {
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`
	Failcnt uint64 `json:"failcnt"`
}

func convertStats(s *cgroup.Stats) *stats {
	var out stats
	out.CPU.Usage.Total, out.CPU.Usage.Percpu = s.CPU.Usage, s.CPU.PerCPU
	out.CPU.Usage.Kernel, out.CPU.Usage.User = s.CPU.System, s.CPU.User
	out.CPU.Throttling.Periods, out.CPU.Throttling.ThrottledPeriods = s.CPU.Periods, s.CPU.ThrottledPeriods
	out.CPU.Throttling.ThrottledTime = s.CPU.Throttled
	m := &s.Memory
	out.Memory = memoryStats{Cache: m.File, Raw: m.Detail,
		Usage: memoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.Peak, Failcnt: m.FailCount},
		Swap:  memoryEntry{Limit: m.SwapLimit, Usage: m.SwapUsage, Max: m.SwapPeak}}
	out.Pids = pidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit}
	for _, d := range s.IO {
		add := func(list *[]blkioEntry, op string, v uint64) {
			*list = append(*list, blkioEntry{uint64(d.Major), uint64(d.Minor), op, v})
		}
		add(&out.Blkio.ServiceBytes, "Read", d.ReadBytes)
		add(&out.Blkio.ServiceBytes, "Write", d.WriteBytes)
		add(&out.Blkio.Serviced, "Read", d.Reads)
		add(&out.Blkio.Serviced, "Write", d.Writes)
	}
	for size, h := range s.Hugetlb {
		if out.Hugetlb == nil {
			out.Hugetlb = map[string]hugetlbStats{}
		}
		out.Hugetlb[size] = hugetlbStats{Usage: h.Usage, Max: h.Peak, Failcnt: h.FailCount}
	}
	return &out
}
