package convert

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// FromCreate makes the engine's request of the body of POST /containers/create. Name and platform come from the query.
// The warnings are for the client.
func FromCreate(b *CreateBody, name, platform string, v types.Version) (model.CreateRequest, []string, error) {
	if b.Config == nil {
		return model.CreateRequest{}, nil, errs.New(errs.Invalid, "config cannot be empty in order to create a container: at least Image must be given")
	}
	cfg := b.Config
	cfg.Cmd, cfg.Entrypoint = b.Cmd, b.Entrypoint
	hc := &container.HostConfig{}
	if b.HostConfig != nil {
		hc = &b.HostConfig.HostConfig
	}
	var warnings []string
	if err := adjustOld(b, hc, v, &warnings); err != nil {
		return model.CreateRequest{}, nil, err
	}
	req := model.CreateRequest{Name: name, Image: cfg.Image, Platform: platform}
	var err error
	if req.Spec, err = Spec(cfg, hc, b.NetworkingConfig); err != nil {
		return model.CreateRequest{}, nil, err
	}
	if err := applyMAC(&req.Spec.Network, b.MacAddress, v, &warnings); err != nil {
		return model.CreateRequest{}, nil, err
	}
	migrateSysctls(&req.Spec, v)
	req.Spec.Storage.BindsTopRO = v < 44 && len(hc.Binds) > 0
	warnings = append(warnings, ignored(cfg, hc, v)...)
	return req, warnings, nil
}

// Spec makes a container's spec of the API's three configurations; hc and nc may be nil.
func Spec(cfg *container.Config, hc *container.HostConfig, nc *network.NetworkingConfig) (model.ContainerSpec, error) {
	if hc == nil {
		hc = &container.HostConfig{}
	}
	s := model.ContainerSpec{
		Process: model.ProcessSpec{
			Entrypoint: cfg.Entrypoint, Cmd: cfg.Cmd, Env: cfg.Env, WorkingDir: cfg.WorkingDir, User: cfg.User, Shell: cfg.Shell,
			Umask: hc.Umask, Tty: cfg.Tty, ConsoleSz: hc.ConsoleSize,
			Stdin: model.StdinSpec{Open: cfg.OpenStdin, Once: cfg.StdinOnce, AttachStdin: cfg.AttachStdin,
				AttachStdout: cfg.AttachStdout, AttachStderr: cfg.AttachStderr},
		},
		Labels:  cfg.Labels,
		Stop:    model.StopSpec{Signal: cfg.StopSignal, Timeout: cfg.StopTimeout},
		Health:  Healthcheck(cfg.Healthcheck),
		Restart: model.RestartPolicy{Name: string(hc.RestartPolicy.Name), MaxRetries: hc.RestartPolicy.MaximumRetryCount},
		Log:     model.LogConfig{Driver: hc.LogConfig.Type, Options: hc.LogConfig.Config},
		Isolation: model.IsolationSpec{IPC: string(hc.IpcMode), PID: string(hc.PidMode), UTS: string(hc.UTSMode), User: string(hc.UsernsMode),
			Cgroup: string(hc.CgroupnsMode), CgroupSpec: string(hc.Cgroup), Isolation: string(hc.Isolation), Sysctls: hc.Sysctls},
		Security: model.SecuritySpec{Privileged: hc.Privileged, CapAdd: hc.CapAdd, CapDrop: hc.CapDrop, GroupAdd: hc.GroupAdd,
			Options: hc.SecurityOpt, MaskedPaths: pathList(hc.MaskedPaths), ReadonlyPaths: pathList(hc.ReadonlyPaths)},
		Resources: Resources(&hc.Resources),
		Options: model.LifeOptions{AutoRemove: hc.AutoRemove, Init: hc.Init, Runtime: hc.Runtime, Annotations: hc.Annotations,
			ContainerIDFile: hc.ContainerIDFile, OnBuild: cfg.OnBuild, StorageOpt: hc.StorageOpt},
	}
	s.Resources.OomScoreAdj = hc.OomScoreAdj
	var err error
	if s.Storage, err = storageSpec(cfg, hc); err != nil {
		return s, err
	}
	s.Network, err = networkSpec(cfg, hc, nc)
	return s, err
}

// Healthcheck maps a health check; nil stays nil.
func Healthcheck(h *container.HealthConfig) *model.Healthcheck {
	if h == nil {
		return nil
	}
	return &model.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
		StartInterval: h.StartInterval, Retries: h.Retries}
}

func pathList(paths []string) *[]string {
	if paths == nil {
		return nil
	}
	return &paths
}

func networkSpec(cfg *container.Config, hc *container.HostConfig, nc *network.NetworkingConfig) (model.ContainerNetworkSpec, error) {
	n := model.ContainerNetworkSpec{
		Mode: string(hc.NetworkMode), Disabled: cfg.NetworkDisabled, Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		PublishAll: hc.PublishAllPorts, Links: hc.Links,
		Names: model.NameSpec{DNSOptions: hc.DNSOptions, DNSSearch: hc.DNSSearch, ExtraHosts: hc.ExtraHosts},
	}
	for _, a := range hc.DNS {
		n.Names.DNS = append(n.Names.DNS, a.String())
	}
	for p := range cfg.ExposedPorts {
		port, err := modelPort(p)
		if err != nil {
			return n, errs.Wrap(err, "ExposedPorts")
		}
		n.Exposed = append(n.Exposed, port)
	}
	slices.SortFunc(n.Exposed, comparePorts)
	var err error
	if n.Publish, err = portBindings(hc.PortBindings); err != nil {
		return n, err
	}
	if nc == nil || nc.EndpointsConfig == nil {
		return n, nil
	}
	n.Endpoints = make(map[string]model.EndpointSpec, len(nc.EndpointsConfig))
	for name, es := range nc.EndpointsConfig {
		if n.Endpoints[name], err = EndpointSpec(es); err != nil {
			return n, errs.Wrap(err, "NetworkingConfig of network %q", name)
		}
	}
	return n, nil
}

func comparePorts(a, b model.Port) int {
	if a.Number != b.Number {
		return int(a.Number) - int(b.Number)
	}
	return strings.Compare(string(a.Proto), string(b.Proto))
}

func modelPort(p network.Port) (model.Port, error) {
	m := model.Port{Number: p.Num(), Proto: model.Proto(p.Proto())}
	if !p.IsValid() || m.Number == 0 || !m.Proto.Valid() {
		return m, errs.New(errs.Invalid, "port %q: want a number from 1 to 65535 with /tcp, /udp or /sctp behind it", p.String())
	}
	return m, nil
}

// portBindings flattens the map, sorted by container port, each port's bindings in the order given. An empty list means
// one binding with everything left to the engine.
func portBindings(m network.PortMap) ([]model.PortBinding, error) {
	var out []model.PortBinding
	for p, list := range m {
		port, err := modelPort(p)
		if err != nil {
			return nil, errs.Wrap(err, "PortBindings")
		}
		if len(list) == 0 {
			list = []network.PortBinding{{}}
		}
		for _, b := range list {
			mb := model.PortBinding{Port: port, HostIP: b.HostIP}
			if mb.HostPort, mb.HostPortEnd, err = model.ParsePortRange(b.HostPort); err != nil {
				return nil, errs.Wrap(err, "PortBindings of %s", port)
			}
			if mb.HostPortEnd == mb.HostPort {
				mb.HostPortEnd = 0
			}
			if err := mb.Validate(); err != nil {
				return nil, errs.Wrap(err, "PortBindings")
			}
			out = append(out, mb)
		}
	}
	slices.SortStableFunc(out, func(a, b model.PortBinding) int { return comparePorts(a.Port, b.Port) })
	return out, nil
}

// EndpointSpec maps what a user asks of a place on a network; nil asks for nothing. What only the engine sets is ignored.
func EndpointSpec(es *network.EndpointSettings) (model.EndpointSpec, error) {
	if es == nil {
		return model.EndpointSpec{}, nil
	}
	s := model.EndpointSpec{Aliases: es.Aliases, Links: es.Links, DriverOpts: es.DriverOpts, GatewayPriority: es.GwPriority}
	if c := es.IPAMConfig; c != nil {
		if c.IPv4Address.IsValid() && !c.IPv4Address.Unmap().Is4() {
			return s, errs.New(errs.Invalid, "IPv4Address %s is not an IPv4 address", c.IPv4Address)
		}
		if c.IPv6Address.IsValid() && !c.IPv6Address.Is6() {
			return s, errs.New(errs.Invalid, "IPv6Address %s is not an IPv6 address", c.IPv6Address)
		}
		s.IPv4, s.IPv6, s.LinkLocal = c.IPv4Address, c.IPv6Address, c.LinkLocalIPs
	}
	if len(es.MacAddress) > 0 {
		mac, err := model.ParseMAC(es.MacAddress.String())
		if err != nil {
			return s, err
		}
		s.MAC = mac
	}
	return s, nil
}

// FromUpdate makes the engine's request of the body of POST /containers/{id}/update. The warnings name what is set and cannot be
// changed: clients send whole Resources back.
func FromUpdate(u *container.UpdateConfig, v types.Version) (_ model.UpdateRequest, warnings []string) {
	for _, f := range []struct {
		set  bool
		name string
	}{
		{len(u.Devices) > 0, "Devices"}, {len(u.DeviceRequests) > 0, "DeviceRequests"}, {len(u.DeviceCgroupRules) > 0, "DeviceCgroupRules"},
		{len(u.Ulimits) > 0, "Ulimits"}, {u.CgroupParent != "", "CgroupParent"}, {u.CPUCount != 0, "CpuCount"}, {u.CPUPercent != 0, "CpuPercent"},
		{u.IOMaximumIOps != 0, "IOMaximumIOps"}, {u.IOMaximumBandwidth != 0, "IOMaximumBandwidth"},
	} {
		if f.set {
			warnings = append(warnings, f.name+" cannot be changed by an update and stays as it is; make the container anew")
		}
	}
	r := model.UpdateRequest{
		Resources: Resources(&u.Resources),
		Restart:   model.RestartPolicy{Name: string(u.RestartPolicy.Name), MaxRetries: u.RestartPolicy.MaximumRetryCount},
	}
	if v < 40 {
		r.Resources.PidsLimit = nil
	}
	if v < 55 { // documented as ignored before
		b := &r.Resources.BlockIO
		b.WeightDevice, b.DeviceReadBps, b.DeviceWriteBps, b.DeviceReadIOps, b.DeviceWriteIOps = nil, nil, nil, nil, nil
	}
	return r, warnings
}

// FromExecCreate makes the engine's exec of the body of POST /containers/{id}/exec.
func FromExecCreate(e *container.ExecCreateRequest, v types.Version) model.ExecSpec {
	s := model.ExecSpec{Cmd: e.Cmd, Env: e.Env, User: e.User, WorkingDir: e.WorkingDir, Privileged: e.Privileged, Tty: e.Tty,
		AttachStdin: e.AttachStdin, AttachStdout: e.AttachStdout, AttachStderr: e.AttachStderr, DetachKeys: e.DetachKeys}
	if e.ConsoleSize != nil && v >= 42 {
		s.ConsoleSize = *e.ConsoleSize
	}
	return s
}

// StrSlice is a list of strings that older clients send as one string.
type StrSlice []string

// UnmarshalJSON takes a list, or one string as a list of one.
func (s *StrSlice) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var one string
		if err := json.Unmarshal(data, &one); err != nil {
			return err
		}
		*s = []string{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return err
	}
	*s = many
	return nil
}
