package convert

import (
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/model"
)

// Resources maps limits and devices. A list that is empty but not null stays so: an update clears it.
func Resources(r *container.Resources) model.Resources {
	return model.Resources{
		CPU: model.CPUResources{Shares: r.CPUShares, NanoCPUs: r.NanoCPUs, Period: r.CPUPeriod, Quota: r.CPUQuota,
			RealtimePeriod: r.CPURealtimePeriod, RealtimeRuntime: r.CPURealtimeRuntime, CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems},
		Memory: model.MemoryResources{Limit: r.Memory, Reservation: r.MemoryReservation, Swap: r.MemorySwap,
			Swappiness: r.MemorySwappiness, OomKillDisable: r.OomKillDisable},
		BlockIO: model.BlockIOResources{
			Weight: r.BlkioWeight,
			WeightDevice: mapPtrs(r.BlkioWeightDevice, func(d *blkiodev.WeightDevice) model.WeightDevice {
				return model.WeightDevice{Path: d.Path, Weight: d.Weight}
			}),
			DeviceReadBps: throttles(r.BlkioDeviceReadBps), DeviceWriteBps: throttles(r.BlkioDeviceWriteBps),
			DeviceReadIOps: throttles(r.BlkioDeviceReadIOps), DeviceWriteIOps: throttles(r.BlkioDeviceWriteIOps),
		},
		PidsLimit: r.PidsLimit,
		Ulimits: mapPtrs(r.Ulimits, func(u *container.Ulimit) model.Ulimit {
			return model.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
		}),
		Devices: mapSlice(r.Devices, func(d container.DeviceMapping) model.DeviceMapping {
			return model.DeviceMapping{PathOnHost: d.PathOnHost, PathInContainer: d.PathInContainer, Permissions: d.CgroupPermissions}
		}),
		DeviceRules: r.DeviceCgroupRules,
		DeviceRequest: mapSlice(r.DeviceRequests, func(d container.DeviceRequest) model.DeviceRequest {
			return model.DeviceRequest{Driver: d.Driver, Count: d.Count, DeviceIDs: d.DeviceIDs, Capabilities: d.Capabilities, Options: d.Options}
		}),
		CgroupParent: r.CgroupParent,
	}
}

func throttles(in []*blkiodev.ThrottleDevice) []model.ThrottleDevice {
	return mapPtrs(in, func(d *blkiodev.ThrottleDevice) model.ThrottleDevice {
		return model.ThrottleDevice{Path: d.Path, Rate: d.Rate}
	})
}

func toResources(r *model.Resources) container.Resources {
	b := &r.BlockIO
	return container.Resources{
		CPUShares: r.CPU.Shares, Memory: r.Memory.Limit, NanoCPUs: r.CPU.NanoCPUs, CgroupParent: r.CgroupParent,
		BlkioWeight: b.Weight,
		BlkioWeightDevice: mapSlice(b.WeightDevice, func(d model.WeightDevice) *blkiodev.WeightDevice {
			return &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight}
		}),
		BlkioDeviceReadBps: toThrottles(b.DeviceReadBps), BlkioDeviceWriteBps: toThrottles(b.DeviceWriteBps),
		BlkioDeviceReadIOps: toThrottles(b.DeviceReadIOps), BlkioDeviceWriteIOps: toThrottles(b.DeviceWriteIOps),
		CPUPeriod: r.CPU.Period, CPUQuota: r.CPU.Quota, CPURealtimePeriod: r.CPU.RealtimePeriod, CPURealtimeRuntime: r.CPU.RealtimeRuntime,
		CpusetCpus: r.CPU.CpusetCpus, CpusetMems: r.CPU.CpusetMems,
		Devices: mapSlice(r.Devices, func(d model.DeviceMapping) container.DeviceMapping {
			return container.DeviceMapping{PathOnHost: d.PathOnHost, PathInContainer: d.PathInContainer, CgroupPermissions: d.Permissions}
		}),
		DeviceCgroupRules: r.DeviceRules,
		DeviceRequests: mapSlice(r.DeviceRequest, func(d model.DeviceRequest) container.DeviceRequest {
			return container.DeviceRequest{Driver: d.Driver, Count: d.Count, DeviceIDs: d.DeviceIDs, Capabilities: d.Capabilities, Options: d.Options}
		}),
		MemoryReservation: r.Memory.Reservation, MemorySwap: r.Memory.Swap, MemorySwappiness: r.Memory.Swappiness,
		OomKillDisable: r.Memory.OomKillDisable, PidsLimit: r.PidsLimit,
		Ulimits: mapSlice(r.Ulimits, func(u model.Ulimit) *container.Ulimit {
			return &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
		}),
	}
}

func toThrottles(in []model.ThrottleDevice) []*blkiodev.ThrottleDevice {
	return mapSlice(in, func(d model.ThrottleDevice) *blkiodev.ThrottleDevice {
		return &blkiodev.ThrottleDevice{Path: d.Path, Rate: d.Rate}
	})
}

// mapSlice maps each element; nil stays nil.
func mapSlice[A, B any](in []A, f func(A) B) []B {
	if in == nil {
		return nil
	}
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = f(a)
	}
	return out
}

// mapPtrs maps each element that is not null; nil stays nil.
func mapPtrs[A, B any](in []*A, f func(*A) B) []B {
	if in == nil {
		return nil
	}
	out := make([]B, 0, len(in))
	for _, a := range in {
		if a != nil {
			out = append(out, f(a))
		}
	}
	return out
}
