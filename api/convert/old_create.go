package convert

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// adjustOld gives a create request of an older client the meaning that it had in that client's version: fields that the
// version did not have are dropped, and defaults that have changed since are filled in. The rules are those of the
// Engine API's version history.
func adjustOld(b *CreateBody, hc *container.HostConfig, v types.Version, warnings *[]string) error {
	if v < 25 {
		hc.AutoRemove = false // the client removed the container itself
	}
	if v < 40 && hc.IpcMode == "" {
		hc.IpcMode = container.IPCModeShareable
	}
	if v < 41 && hc.CgroupnsMode == "" {
		hc.CgroupnsMode = container.CgroupnsModeHost
	}
	if v < 42 {
		hc.ConsoleSize = [2]uint{}
		if b.HostConfig != nil && b.HostConfig.KernelMemory != 0 {
			*warnings = append(*warnings, "KernelMemory is ignored: kernels no longer limit kernel memory by itself; Memory covers it")
		}
	}
	if v < 43 {
		hc.Annotations = nil
	}
	if v < 52 && b.HostConfig != nil && b.HostConfig.KernelMemoryTCP != 0 {
		*warnings = append(*warnings, "KernelMemoryTCP is ignored: Memory covers the buffers of TCP")
	}
	if v < 44 {
		if b.Healthcheck != nil {
			b.Healthcheck.StartInterval = 0
		}
		if n := b.NetworkingConfig; n != nil {
			if len(n.EndpointsConfig) > 1 {
				return errs.New(errs.Invalid, "Container cannot be created with multiple network endpoints: %d are asked for by a client of API version %s; that needs 1.44 (connect the others afterwards)",
					len(n.EndpointsConfig), v)
			}
			for _, es := range n.EndpointsConfig {
				if es != nil {
					es.MacAddress = nil
				}
			}
		}
	}
	if v < 56 {
		hc.Umask = nil
	}
	for i := range hc.Mounts {
		if err := adjustOldMount(&hc.Mounts[i], v); err != nil {
			return err
		}
	}
	return nil
}

func adjustOldMount(m *mount.Mount, v types.Version) error {
	if o := m.BindOptions; o != nil {
		if v < 40 {
			o.NonRecursive = false
		}
		if v < 42 {
			o.CreateMountpoint = false
		}
		if v < 44 {
			o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive = m.ReadOnly, false // read-only used to mean the top mount alone
		}
	}
	if v < 44 && m.Type == mount.TypeBind && m.ReadOnly && m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{ReadOnlyNonRecursive: true}
	}
	if v < 42 { // options of another kind were ignored
		if m.Type != mount.TypeBind {
			m.BindOptions = nil
		}
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
	}
	if o := m.VolumeOptions; o != nil && o.Subpath != "" && v < 45 {
		return errs.New(errs.Invalid, "mount at %q: VolumeOptions.Subpath needs API version 1.45 or newer, the client speaks %s", m.Target, v)
	}
	if o := m.TmpfsOptions; o != nil && v < 46 {
		o.Options = nil
	}
	if m.Type == mount.TypeImage && v < 48 {
		return errs.New(errs.Invalid, "mount at %q: type image needs API version 1.48 or newer, the client speaks %s", m.Target, v)
	}
	return nil
}

// applyMAC gives the address that older clients set for the whole container to its first network.
func applyMAC(n *model.ContainerNetworkSpec, mac string, v types.Version, warnings *[]string) error {
	if mac == "" {
		return nil
	}
	if v >= 52 {
		*warnings = append(*warnings, "MacAddress of the whole container is ignored since API version 1.52; set it in NetworkingConfig.EndpointsConfig")
		return nil
	}
	addr, err := model.ParseMAC(mac)
	if err != nil {
		return errs.Wrap(err, "MacAddress")
	}
	name := n.Mode
	if name == "host" || name == "none" || strings.HasPrefix(name, "container:") {
		return errs.New(errs.Invalid, "MacAddress %s and network mode %q exclude each other: in that mode the container has no interface of its own", mac, name)
	}
	if name == "" {
		name = "default"
	}
	n.MacAddress = mac
	if len(n.Endpoints) == 1 { // the client names the network by another of its names
		for only := range n.Endpoints {
			name = only
		}
	}
	ep := n.Endpoints[name]
	if !ep.MAC.IsZero() && ep.MAC != addr {
		return errs.New(errs.Invalid, "MacAddress %s of the container differs from MacAddress %s of its endpoint on network %q; give one of them", mac, ep.MAC, name)
	}
	ep.MAC = addr
	if n.Endpoints == nil {
		n.Endpoints = map[string]model.EndpointSpec{}
	}
	n.Endpoints[name] = ep
	if v >= 44 {
		*warnings = append(*warnings, "MacAddress of the whole container is deprecated; set it in NetworkingConfig.EndpointsConfig")
	}
	return nil
}

// migrateSysctls moves sysctls of eth0 to the endpoint that becomes it, as clients before 1.48 expect: in a container's
// namespace the interface's name is not known before it is connected.
func migrateSysctls(s *model.ContainerSpec, v types.Version) {
	if v >= 48 {
		return
	}
	var moved []string
	kept := map[string]string{}
	for key, value := range s.Isolation.Sysctls {
		parts := strings.Split(key, ".")
		if len(parts) >= 5 && parts[0] == "net" && parts[3] == "eth0" {
			parts[3] = "IFNAME"
			moved = append(moved, strings.Join(parts, ".")+"="+value)
			continue
		}
		kept[key] = value
	}
	n := &s.Network
	if len(moved) == 0 || n.Mode == "host" || n.Mode == "none" || strings.HasPrefix(n.Mode, "container:") {
		return
	}
	slices.Sort(moved)
	name := n.Mode
	if name == "" {
		name = "default"
	}
	ep := n.Endpoints[name]
	opts := maps.Clone(ep.DriverOpts)
	if opts == nil {
		opts = map[string]string{}
	}
	if had := opts[model.OptEndpointSysctls]; had != "" {
		moved = append([]string{had}, moved...)
	}
	opts[model.OptEndpointSysctls] = strings.Join(moved, ",")
	ep.DriverOpts = opts
	if n.Endpoints == nil {
		n.Endpoints = map[string]model.EndpointSpec{}
	}
	n.Endpoints[name] = ep
	s.Isolation.Sysctls = kept
}

// ignored names what the request sets and a Linux host has no use for.
func ignored(cfg *container.Config, hc *container.HostConfig, v types.Version) []string {
	var out []string
	for _, f := range []struct {
		set        bool
		name, hint string
	}{
		{hc.CPUCount != 0, "CpuCount", "use NanoCpus (--cpus)"},
		{hc.CPUPercent != 0, "CpuPercent", "use NanoCpus (--cpus)"},
		{hc.IOMaximumIOps != 0, "IOMaximumIOps", "use BlkioDeviceReadIOps and BlkioDeviceWriteIOps"},
		{hc.IOMaximumBandwidth != 0, "IOMaximumBandwidth", "use BlkioDeviceReadBps and BlkioDeviceWriteBps"},
		{cfg.ArgsEscaped, "ArgsEscaped", "arguments are passed as they are"},
	} {
		if f.set {
			out = append(out, fmt.Sprintf("%s works on Windows only and is ignored; %s", f.name, f.hint))
		}
	}
	if v >= 52 {
		var empty []string
		for p, list := range hc.PortBindings {
			if len(list) == 0 {
				empty = append(empty, p.String())
			}
		}
		if slices.Sort(empty); len(empty) > 0 {
			out = append(out, fmt.Sprintf("PortBindings of %s hold an empty list; it is taken for one binding to a port chosen by the engine, "+
				"which a future API version will no longer do: send [{}]", strings.Join(empty, ", ")))
		}
	}
	return out
}
