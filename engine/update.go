package engine

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// Update changes limits and the restart policy, at once and for later starts. Zero values change nothing.
func (e *Engine) Update(ctx context.Context, ref string, r model.UpdateRequest) (warnings []string, err error) {
	en, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	if err := en.enter(ctx); err != nil {
		return nil, err
	}
	defer en.leave()
	c := en.get()
	if s := c.State.Status; s == model.StatusRemoving || s == model.StatusDead {
		return nil, errs.New(errs.Conflict, "cannot update container %s: it is marked for removal", c.Name)
	}
	next := *c
	next.Spec.Resources = updateResources(c.Spec.Resources, r.Resources)
	if r.Restart.Name != "" {
		if c.Spec.Options.AutoRemove && r.Restart.Name != "no" {
			return nil, errs.New(errs.Conflict, "cannot update container %s: Restart policy cannot be updated because AutoRemove is enabled for the container", c.Name)
		}
		next.Spec.Restart = r.Restart
	}
	if err := validateLife(&next.Spec); err != nil {
		return nil, err
	}
	if warnings, err = e.validateResources(&next.Spec.Resources); err != nil {
		return nil, err
	}
	if t := en.running(); t != nil {
		block, err := blockDevices(next.Spec.Resources.BlockIO)
		if err != nil {
			return nil, err
		}
		res, err := ocispec.Resources(next.Spec.Resources, block, e.defaults.Load().Limits.PidsLimit)
		if err != nil {
			return nil, err
		}
		if err := t.Update(ctx, res); err != nil {
			return nil, errs.Wrap(err, "cannot update container %s", c.Name)
		}
	}
	if err := failpoint.Hit("engine/update/applied"); err != nil {
		return nil, err
	}
	if err := e.records.SaveSpec(&next, !c.Spec.Options.AutoRemove); err != nil {
		return nil, err
	}
	c = en.edit(func(c *model.Container) { c.Spec.Resources, c.Spec.Restart = next.Spec.Resources, next.Spec.Restart })
	e.publish(c, "update", nil)
	return warnings, nil
}

// updateResources puts what the request names in the place of what was.
func updateResources(old, in model.Resources) model.Resources {
	out := old
	// Processors by time share and by quota exclude each other: the newer wins.
	if in.CPU.NanoCPUs != 0 {
		out.CPU.Period, out.CPU.Quota = 0, 0
	}
	if in.CPU.Period != 0 || in.CPU.Quota != 0 {
		out.CPU.NanoCPUs = 0
	}
	out.CPU = model.CPUResources{
		Shares:          cmp.Or(in.CPU.Shares, out.CPU.Shares),
		NanoCPUs:        cmp.Or(in.CPU.NanoCPUs, out.CPU.NanoCPUs),
		Period:          cmp.Or(in.CPU.Period, out.CPU.Period),
		Quota:           cmp.Or(in.CPU.Quota, out.CPU.Quota),
		RealtimePeriod:  cmp.Or(in.CPU.RealtimePeriod, out.CPU.RealtimePeriod),
		RealtimeRuntime: cmp.Or(in.CPU.RealtimeRuntime, out.CPU.RealtimeRuntime),
		CpusetCpus:      cmp.Or(in.CPU.CpusetCpus, out.CPU.CpusetCpus),
		CpusetMems:      cmp.Or(in.CPU.CpusetMems, out.CPU.CpusetMems),
	}
	mem := &out.Memory
	mem.Limit = cmp.Or(in.Memory.Limit, mem.Limit)
	mem.Reservation = cmp.Or(in.Memory.Reservation, mem.Reservation)
	mem.Swap = cmp.Or(in.Memory.Swap, mem.Swap)
	if in.Memory.Swappiness != nil {
		mem.Swappiness = in.Memory.Swappiness
	}
	if in.Memory.OomKillDisable != nil {
		mem.OomKillDisable = in.Memory.OomKillDisable
	}
	out.BlockIO.Weight = cmp.Or(in.BlockIO.Weight, out.BlockIO.Weight)
	if len(in.BlockIO.WeightDevice) > 0 {
		out.BlockIO.WeightDevice = slices.Clone(in.BlockIO.WeightDevice)
	}
	for _, l := range []struct {
		to   *[]model.ThrottleDevice
		from []model.ThrottleDevice
	}{
		{&out.BlockIO.DeviceReadBps, in.BlockIO.DeviceReadBps}, {&out.BlockIO.DeviceWriteBps, in.BlockIO.DeviceWriteBps},
		{&out.BlockIO.DeviceReadIOps, in.BlockIO.DeviceReadIOps}, {&out.BlockIO.DeviceWriteIOps, in.BlockIO.DeviceWriteIOps},
	} {
		if len(l.from) > 0 {
			*l.to = slices.Clone(l.from)
		}
	}
	if in.PidsLimit != nil {
		none := max(*in.PidsLimit, 0) // however it was said that there is none
		out.PidsLimit = &none
	}
	return out
}
