package engine

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Devices knows the devices that their vendors describe in files on this machine (CDI, the Container Device Interface).
type Devices interface {
	// Names lists them as "vendor/class=name", sorted, as the files say now.
	Names() []string
	// Dirs are where the files are looked for.
	Dirs() []string
	// Inject adds what the descriptions of these devices say to a configuration: nodes, mounts, environment, hooks.
	Inject(s *specs.Spec, names []string) error
}

// gpuVendors are whose devices --gpus means, by the driver's name in the request; without one the first that has any.
var gpuVendors = []struct{ driver, kind string }{{"nvidia", "nvidia.com/gpu"}, {"amd", "amd.com/gpu"}}

// resolveDevices turns device requests into names of CDI devices, which must be there.
func (e *Engine) resolveDevices(requests []model.DeviceRequest) ([]string, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	var known, out []string
	where := "device descriptions (CDI) are switched off in this daemon"
	if e.ports.Devices != nil {
		known = e.ports.Devices.Names()
		where = "looked for device descriptions (CDI) in " + strings.Join(e.ports.Devices.Dirs(), ", ")
	}
	for _, r := range requests {
		names, err := resolveDevice(r, known, where)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out, nil
}

func resolveDevice(r model.DeviceRequest, known []string, where string) ([]string, error) {
	if len(r.Options) > 0 {
		return nil, errs.New(errs.Unsupported, "device request of driver %q: its options %v are not known; leave them out", r.Driver, r.Options)
	}
	if r.Driver == "cdi" {
		if len(r.DeviceIDs) == 0 {
			return nil, invalid("device request of driver \"cdi\" names no device: want names such as vendor.com/class=name")
		}
		for _, id := range r.DeviceIDs {
			if !slices.Contains(known, id) {
				return nil, invalid("unresolvable CDI device %s: %s; known are: %s", id, where, orNone(known))
			}
		}
		return r.DeviceIDs, nil
	}
	gpu := slices.ContainsFunc(r.Capabilities, func(set []string) bool { return slices.Contains(set, "gpu") })
	for _, v := range gpuVendors {
		if !gpu && r.Driver == "" || r.Driver != "" && r.Driver != v.driver {
			continue
		}
		var names []string
		for _, n := range known {
			if name, ok := strings.CutPrefix(n, v.kind+"="); ok {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			return chooseGPUs(r, v.kind, names)
		}
	}
	return nil, errs.New(errs.Unsupported, "could not select device driver %q with capabilities: %v: no GPU is described here, %s (for NVIDIA, nvidia-ctk cdi generate makes the file); or use --device with the device's path",
		r.Driver, r.Capabilities, where)
}

func chooseGPUs(r model.DeviceRequest, kind string, names []string) ([]string, error) {
	var out []string
	add := func(name string) { out = append(out, kind+"="+name) }
	switch {
	case r.Count != 0 && len(r.DeviceIDs) > 0:
		return nil, invalid("cannot set both Count and DeviceIDs on a device request")
	case len(r.DeviceIDs) > 0:
		for _, id := range r.DeviceIDs {
			if !slices.Contains(names, id) {
				return nil, invalid("no device %s=%s here; known are: %s", kind, id, strings.Join(names, ", "))
			}
			add(id)
		}
	case r.Count == 0:
		return nil, invalid("the device request asks for 0 devices: want a number, -1 for all, or their names")
	case r.Count < 0 && slices.Contains(names, "all"):
		add("all")
	default:
		single := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "all" })
		// The same device may be described by its number and by its identity: the numbers are the devices then.
		if numbers := slices.DeleteFunc(slices.Clone(single), func(n string) bool { _, err := strconv.Atoi(n); return err != nil }); len(numbers) > 0 {
			slices.SortFunc(numbers, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y })
			single = numbers
		}
		count := r.Count
		if count < 0 {
			count = len(single)
		}
		if count > len(single) {
			return nil, invalid("%d devices of %s were asked for, there are %d: %s", count, kind, len(single), strings.Join(single, ", "))
		}
		for _, n := range single[:count] {
			add(n)
		}
	}
	return out, nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// injectDevices adds the requested devices to the configuration.
func (e *Engine) injectDevices(s *specs.Spec, requests []model.DeviceRequest) error {
	names, err := e.resolveDevices(requests)
	if err != nil || len(names) == 0 {
		return err
	}
	return errs.As(errs.Invalid, errs.Wrap(e.ports.Devices.Inject(s, names), "CDI device injection failed"))
}
