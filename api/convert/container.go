package convert

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/shoalhq/shoal/model"
)

// ToConfig is the API's portable configuration of a container.
func ToConfig(c *model.Container) *container.Config {
	s := &c.Spec
	cfg := &container.Config{
		Hostname: s.Network.Hostname, Domainname: s.Network.Domainname, User: s.Process.User,
		AttachStdin: s.Process.Stdin.AttachStdin, AttachStdout: s.Process.Stdin.AttachStdout, AttachStderr: s.Process.Stdin.AttachStderr,
		Tty: s.Process.Tty, OpenStdin: s.Process.Stdin.Open, StdinOnce: s.Process.Stdin.Once,
		Env: s.Process.Env, Cmd: s.Process.Cmd, Healthcheck: toHealthcheck(s.Health), Image: c.Image.Ref,
		Volumes: s.Storage.Volumes, WorkingDir: s.Process.WorkingDir, Entrypoint: s.Process.Entrypoint,
		NetworkDisabled: s.Network.Disabled, OnBuild: s.Options.OnBuild, Labels: s.Labels,
		StopSignal: s.Stop.Signal, StopTimeout: s.Stop.Timeout, Shell: s.Process.Shell,
	}
	if len(s.Network.Exposed) > 0 {
		cfg.ExposedPorts = network.PortSet{}
		for _, p := range s.Network.Exposed {
			cfg.ExposedPorts[toPort(p)] = struct{}{}
		}
	}
	return cfg
}

func toHealthcheck(h *model.Healthcheck) *container.HealthConfig {
	if h == nil {
		return nil
	}
	return &container.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
		StartInterval: h.StartInterval, Retries: h.Retries}
}

// ToHostConfig is the API's host-dependent configuration of a container.
func ToHostConfig(s *model.ContainerSpec) *container.HostConfig {
	hc := &container.HostConfig{
		Binds: s.Storage.Binds, ContainerIDFile: s.Options.ContainerIDFile,
		LogConfig:   container.LogConfig{Type: s.Log.Driver, Config: s.Log.Options},
		NetworkMode: container.NetworkMode(s.Network.Mode), PortBindings: toPortMap(s.Network.Publish, true),
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart.Name), MaximumRetryCount: s.Restart.MaxRetries},
		AutoRemove:    s.Options.AutoRemove, VolumeDriver: s.Storage.VolumeDriver, VolumesFrom: s.Storage.VolumesFrom,
		ConsoleSize: s.Process.ConsoleSz, Annotations: s.Options.Annotations,
		CapAdd: s.Security.CapAdd, CapDrop: s.Security.CapDrop, CgroupnsMode: container.CgroupnsMode(s.Isolation.Cgroup),
		DNS: toAddrs(s.Network.Names.DNS), DNSOptions: s.Network.Names.DNSOptions, DNSSearch: s.Network.Names.DNSSearch,
		ExtraHosts: s.Network.Names.ExtraHosts, GroupAdd: s.Security.GroupAdd, IpcMode: container.IpcMode(s.Isolation.IPC),
		Cgroup: container.CgroupSpec(s.Isolation.CgroupSpec), Links: s.Network.Links, OomScoreAdj: s.Resources.OomScoreAdj,
		PidMode: container.PidMode(s.Isolation.PID), Privileged: s.Security.Privileged, PublishAllPorts: s.Network.PublishAll,
		ReadonlyRootfs: s.Storage.ReadonlyRootfs, SecurityOpt: s.Security.Options, StorageOpt: s.Options.StorageOpt,
		Tmpfs: s.Storage.Tmpfs, UTSMode: container.UTSMode(s.Isolation.UTS), UsernsMode: container.UsernsMode(s.Isolation.User),
		ShmSize: s.Storage.ShmSize, Sysctls: s.Isolation.Sysctls, Runtime: s.Options.Runtime, Umask: s.Process.Umask,
		Isolation: container.Isolation(s.Isolation.Isolation), Resources: toResources(&s.Resources), Init: s.Options.Init,
	}
	for i := range s.Storage.Mounts {
		hc.Mounts = append(hc.Mounts, toMount(&s.Storage.Mounts[i]))
	}
	if s.Security.MaskedPaths != nil {
		hc.MaskedPaths = *s.Security.MaskedPaths
	}
	if s.Security.ReadonlyPaths != nil {
		hc.ReadonlyPaths = *s.Security.ReadonlyPaths
	}
	return hc
}

// ToNetworkingConfig is what was asked of each network.
func ToNetworkingConfig(s *model.ContainerNetworkSpec) *network.NetworkingConfig {
	if s.Endpoints == nil {
		return nil
	}
	nc := &network.NetworkingConfig{EndpointsConfig: make(map[string]*network.EndpointSettings, len(s.Endpoints))}
	for name, ep := range s.Endpoints {
		nc.EndpointsConfig[name] = ToEndpointSettings(&model.Endpoint{Spec: ep})
		if ep.MAC.IsZero() {
			nc.EndpointsConfig[name].MacAddress = nil
		}
	}
	return nc
}

// ToEndpointSettings is a place on a network, asked and got.
func ToEndpointSettings(e *model.Endpoint) *network.EndpointSettings {
	s := &e.Spec
	out := &network.EndpointSettings{
		Links: s.Links, Aliases: s.Aliases, DriverOpts: s.DriverOpts, GwPriority: s.GatewayPriority,
		NetworkID: e.NetworkID, EndpointID: e.ID, Gateway: e.Gateway4, IPv6Gateway: e.Gateway6, DNSNames: e.DNSNames,
	}
	if s.IPv4.IsValid() || s.IPv6.IsValid() || s.LinkLocal != nil {
		out.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: s.IPv4, IPv6Address: s.IPv6, LinkLocalIPs: s.LinkLocal}
	}
	mac := e.MAC
	if mac.IsZero() {
		mac = s.MAC
	}
	if !mac.IsZero() {
		out.MacAddress = mac[:]
	}
	if e.IPv4.IsValid() {
		out.IPAddress, out.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
	}
	if e.IPv6.IsValid() {
		out.GlobalIPv6Address, out.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
	}
	return out
}

func toPort(p model.Port) network.Port {
	port, _ := network.PortFrom(p.Number, network.IPProtocol(p.Proto))
	return port
}

// toPortMap groups bindings by container port. As asked, a port left to the engine is the empty string.
func toPortMap(bindings []model.PortBinding, asked bool) network.PortMap {
	out := make(network.PortMap, len(bindings))
	for _, b := range bindings {
		host := strconv.Itoa(int(b.HostPort))
		switch {
		case asked && b.HostPort == 0:
			host = ""
		case asked && b.HostPortEnd > b.HostPort:
			host += "-" + strconv.Itoa(int(b.HostPortEnd))
		}
		out[toPort(b.Port)] = append(out[toPort(b.Port)], network.PortBinding{HostIP: b.HostIP, HostPort: host})
	}
	return out
}

func toAddrs(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// zeroTime is how the API writes a time that never was.
const zeroTime = "0001-01-01T00:00:00Z"

func stamp(t time.Time) string {
	if t.IsZero() {
		return zeroTime
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func toState(s *model.State) *container.State {
	alive := s.Alive()
	out := &container.State{
		Status: container.ContainerState(s.Status), Running: alive || s.Status == model.StatusRestarting,
		Paused: s.Status == model.StatusPaused, Restarting: s.Status == model.StatusRestarting, OOMKilled: s.OOMKilled,
		Dead: s.Status == model.StatusDead, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
	}
	if h := s.Health; h != nil {
		out.Health = &container.Health{Status: container.HealthStatus(h.Status), FailingStreak: h.FailingStreak, Log: []*container.HealthcheckResult{}}
		for _, r := range h.Log {
			out.Health.Log = append(out.Health.Log, &container.HealthcheckResult{Start: r.Start, End: r.End, ExitCode: r.ExitCode, Output: r.Output})
		}
	}
	return out
}

// endpoints are all places of the container: those it has, and while it does not run those it asked for.
func endpoints(c *model.Container) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for name, spec := range c.Spec.Network.Endpoints {
		out[name] = ToEndpointSettings(&model.Endpoint{Spec: spec})
	}
	for name, ep := range c.Network.Endpoints {
		out[name] = ToEndpointSettings(&ep)
	}
	mode := c.Spec.Network.Mode
	if len(out) == 0 && mode != "" && !strings.HasPrefix(mode, "container:") {
		if mode == "default" {
			mode = model.NetworkBridge
		}
		out[mode] = &network.EndpointSettings{}
	}
	return out
}

// ports are the published ports with the host ports chosen, and the exposed ones without a binding.
func ports(c *model.Container) network.PortMap {
	out := toPortMap(c.Network.Ports, false)
	if !c.State.Alive() {
		return out
	}
	for _, p := range c.Spec.Network.Exposed {
		if _, has := out[toPort(p)]; !has {
			out[toPort(p)] = nil
		}
	}
	return out
}
