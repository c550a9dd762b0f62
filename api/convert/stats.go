package convert

import (
	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

// Stats is one message of GET /containers/{id}/stats; before is the reading before it, or nil.
func Stats(id, name string, now, before *model.Stats, v types.Version) container.StatsResponse {
	out := container.StatsResponse{
		ID: id, Name: "/" + name, Read: now.Read, CPUStats: cpuStats(&now.CPU, v),
		MemoryStats: container.MemoryStats{Usage: now.Memory.Usage, MaxUsage: now.Memory.MaxUsage, Stats: now.Memory.Stats,
			Failcnt: now.Memory.FailCount, Limit: now.Memory.Limit},
		PidsStats:  container.PidsStats{Current: now.Pids.Current, Limit: now.Pids.Limit},
		BlkioStats: blkioStats(now.BlkIO, now.CPU.Total > 0),
	}
	if v >= 52 {
		out.OSType = "linux"
	}
	if before != nil {
		out.PreRead, out.PreCPUStats = before.Read, cpuStats(&before.CPU, v)
	}
	if len(now.Networks) > 0 {
		out.Networks = make(map[string]container.NetworkStats, len(now.Networks))
		for link, n := range now.Networks {
			out.Networks[link] = container.NetworkStats{RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors, RxDropped: n.RxDropped,
				TxBytes: n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors, TxDropped: n.TxDropped}
		}
	}
	return out
}

func cpuStats(c *model.CPUStats, v types.Version) container.CPUStats {
	out := container.CPUStats{
		CPUUsage:       container.CPUUsage{TotalUsage: c.Total, PercpuUsage: c.PerCPU, UsageInKernelmode: c.System, UsageInUsermode: c.User},
		SystemUsage:    c.SystemTotal,
		ThrottlingData: container.ThrottlingData{Periods: c.Periods, ThrottledPeriods: c.Throttled, ThrottledTime: c.ThrottledTime},
	}
	if v >= 27 {
		out.OnlineCPUs = c.Online
	}
	return out
}

// blkioStats takes the lists by the kernel's names, with or without the prefix "blkio.".
func blkioStats(b model.BlkIOStats, running bool) container.BlkioStats {
	list := func(names ...string) []container.BlkioStatEntry {
		for _, n := range names {
			if in, ok := b[n]; ok {
				return mapSlice(in, func(e model.BlkIOEntry) container.BlkioStatEntry {
					return container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value}
				})
			}
		}
		if running {
			return []container.BlkioStatEntry{} // null would break scripts that loop over it
		}
		return nil
	}
	return container.BlkioStats{
		IoServiceBytesRecursive: list("io_service_bytes_recursive"),
		IoServicedRecursive:     list("io_serviced_recursive"),
		IoQueuedRecursive:       list("io_queued_recursive", "io_queue_recursive"),
		IoServiceTimeRecursive:  list("io_service_time_recursive"),
		IoWaitTimeRecursive:     list("io_wait_time_recursive"),
		IoMergedRecursive:       list("io_merged_recursive"),
		IoTimeRecursive:         list("time_recursive", "io_time_recursive"),
		SectorsRecursive:        list("sectors_recursive"),
	}
}
