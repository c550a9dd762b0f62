package runflags

import (
	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// Resources are the limits that `update` can change too, and (in limits) those that only `run` and `create` take.
type Resources struct {
	cpu    cpu
	mem    memory
	blkio  uint16
	pids   int64
	limits fixedLimits
}

type cpu struct {
	shares, period, quota int64
	rtPeriod, rtRuntime   int64
	cpus                  opts.NanoCPUs
	setCPUs, setMems      string
}

type memory struct {
	limit       opts.MemBytes
	reservation opts.MemBytes
	swap        opts.MemSwapBytes
}

// fixedLimits cannot be changed while the container lives.
type fixedLimits struct {
	swappiness  int64
	oomDisable  bool
	oomScoreAdj int
	weightDev   opts.WeightdeviceOpt
	readBps     opts.ThrottledeviceOpt
	writeBps    opts.ThrottledeviceOpt
	readIOps    opts.ThrottledeviceOpt
	writeIOps   opts.ThrottledeviceOpt
}

// addShared declares what run, create and update have in common.
func (r *Resources) addShared(fs *pflag.FlagSet) {
	fs.Uint16Var(&r.blkio, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Int64Var(&r.cpu.period, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&r.cpu.quota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&r.cpu.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&r.cpu.rtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&r.cpu.shares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&r.cpu.cpus, "cpus", "Number of CPUs")
	fs.StringVar(&r.cpu.setCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&r.cpu.setMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.VarP(&r.mem.limit, "memory", "m", "Memory limit")
	fs.Var(&r.mem.reservation, "memory-reservation", "Memory soft limit")
	fs.Var(&r.mem.swap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&r.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
}

func (r *Resources) add(fs *pflag.FlagSet) {
	r.addShared(fs)
	l := &r.limits
	l.weightDev = opts.NewWeightdeviceOpt(opts.ValidateWeightDevice)
	l.readBps = opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice)
	l.writeBps = opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice)
	l.readIOps = opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice)
	l.writeIOps = opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice)
	fs.Int64Var(&l.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&l.oomDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&l.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Var(&l.weightDev, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Var(&l.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&l.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&l.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&l.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
}

// shared writes the limits that run, create and update have in common.
func (r *Resources) shared() container.Resources {
	return container.Resources{
		BlkioWeight: r.blkio, CPUPeriod: r.cpu.period, CPUQuota: r.cpu.quota, CPUShares: r.cpu.shares,
		CPURealtimePeriod: r.cpu.rtPeriod, CPURealtimeRuntime: r.cpu.rtRuntime, NanoCPUs: r.cpu.cpus.Value(),
		CpusetCpus: r.cpu.setCPUs, CpusetMems: r.cpu.setMems, Memory: r.mem.limit.Value(),
		MemoryReservation: r.mem.reservation.Value(), MemorySwap: r.mem.swap.Value(), PidsLimit: &r.pids,
	}
}

func (r *Resources) apply(_ *pflag.FlagSet, req *Request) error {
	l := &r.limits
	if l.swappiness < -1 || l.swappiness > 100 {
		return invalid("invalid value: %d. Valid memory swappiness range is 0-100", l.swappiness)
	}
	h := req.HostConfig
	parent := h.CgroupParent // set by another part; Resources embeds the field
	ulimits := h.Ulimits
	h.Resources = r.shared()
	h.CgroupParent, h.Ulimits = parent, ulimits
	h.MemorySwappiness, h.OomKillDisable, h.OomScoreAdj = &l.swappiness, &l.oomDisable, l.oomScoreAdj
	h.BlkioWeightDevice = l.weightDev.GetList()
	h.BlkioDeviceReadBps, h.BlkioDeviceWriteBps = l.readBps.GetList(), l.writeBps.GetList()
	h.BlkioDeviceReadIOps, h.BlkioDeviceWriteIOps = l.readIOps.GetList(), l.writeIOps.GetList()
	return nil
}

// Update holds the flags of `update`.
type Update struct {
	Resources Resources
	restart   string
}

// AddUpdate declares the flags of `update` on fs.
func AddUpdate(fs *pflag.FlagSet) *Update {
	u := &Update{}
	u.Resources.addShared(fs)
	fs.StringVar(&u.restart, "restart", "", "Restart policy to apply when a container exits")
	return u
}

// Request gives the new limits and restart policy. A policy without a name means: leave it.
func (u *Update) Request(fs *pflag.FlagSet) (container.Resources, container.RestartPolicy, error) {
	res := u.Resources.shared()
	if !fs.Changed("pids-limit") {
		res.PidsLimit = nil
	}
	policy, err := opts.ParseRestartPolicy(u.restart)
	return res, policy, err
}
