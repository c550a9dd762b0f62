package convert

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/shoalhq/shoal/model"
)

// filler gives every field of a value a distinct value, so that one that is lost or mixed up shows.
type filler struct{ n int }

func (f *filler) fill(t *testing.T, v reflect.Value, path string) {
	f.n++
	switch v.Type() {
	case reflect.TypeFor[netip.Addr]():
		a := netip.AddrFrom4([4]byte{10, 0, byte(f.n >> 8), byte(f.n)})
		if strings.Contains(path, "IPv6") {
			a = netip.MustParseAddr(fmt.Sprintf("fd00::%x", f.n))
		}
		v.Set(reflect.ValueOf(a))
		return
	case reflect.TypeFor[network.Port]():
		p, _ := network.PortFrom(uint16(f.n), []network.IPProtocol{"tcp", "udp", "sctp"}[f.n%3])
		v.Set(reflect.ValueOf(p))
		return
	case reflect.TypeFor[network.PortBinding]():
		host := fmt.Sprint(1000 + f.n)
		if f.n%2 == 0 {
			host += fmt.Sprintf("-%d", 2000+f.n)
		}
		v.Set(reflect.ValueOf(network.PortBinding{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, byte(f.n)}), HostPort: host}))
		return
	case reflect.TypeFor[model.Port]():
		v.Set(reflect.ValueOf(model.Port{Number: uint16(f.n), Proto: []model.Proto{"tcp", "udp", "sctp"}[f.n%3]}))
		return
	case reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(f.n), 0}), 24)))
		return
	case reflect.TypeFor[model.MAC]():
		v.Set(reflect.ValueOf(model.MAC{2, 0, 0, 1, byte(f.n >> 8), byte(f.n)}))
		return
	case reflect.TypeFor[model.NameSpec]():
		v.Set(reflect.ValueOf(model.NameSpec{DNS: []string{"10.0.0.1", "fd00::1"}, DNSOptions: []string{"o"}, DNSSearch: []string{"s"}, ExtraHosts: []string{"h:1.2.3.4"}}))
		return
	case reflect.TypeFor[[]model.Mount]():
		v.Set(reflect.ValueOf([]model.Mount{
			{Type: "bind", Source: "/a", Target: "/b", ReadOnly: true, Consistency: "c", Bind: &model.BindOptions{Propagation: "p", NonRecursive: true, CreateMountpoint: true, ReadOnlyNonRecursive: true, ReadOnlyForceRecursive: true}},
			{Type: "volume", Volume: &model.VolumeOptions{NoCopy: true, Labels: map[string]string{"a": "b"}, Subpath: "s", HasDriver: true, DriverName: "d", DriverOptions: map[string]string{"c": "d"}}},
			{Type: "image", Image: &model.ImageMountOptions{Subpath: "s"}},
			{Type: "tmpfs", Tmpfs: &model.TmpfsOptions{SizeBytes: 5, Mode: 6, Options: [][]string{{"a", "b"}}}}}))
		return
	case reflect.TypeFor[network.HardwareAddr]():
		v.Set(reflect.ValueOf(network.HardwareAddr{2, 0, 0, 0, byte(f.n >> 8), byte(f.n)}))
		return
	case reflect.TypeFor[[]mount.Mount](): // each kind with its own options
		var list []mount.Mount
		for _, kind := range []mount.Type{mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage} {
			var m mount.Mount
			f.fillMount(t, &m, kind, path)
			list = append(list, m)
		}
		v.Set(reflect.ValueOf(list))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(t, v.Elem(), path)
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(t, v.Index(0), path)
		f.fill(t, v.Index(1), path)
	case reflect.Array:
		for i := range v.Len() {
			f.fill(t, v.Index(i), path)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(t, key, path)
			f.fill(t, val, path)
			v.SetMapIndex(key, val)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		v.SetUint(uint64(f.n))
	default:
		t.Fatalf("%s: no value for %s", path, v.Type())
	}
}

func (f *filler) fillMount(t *testing.T, m *mount.Mount, kind mount.Type, path string) {
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if strings.HasSuffix(name, "Options") && !strings.EqualFold(name, string(kind)+"Options") {
			continue
		}
		f.fill(t, v.Field(i), path+"."+name)
	}
	m.Type = kind
}

// exceptions are the fields that have no meaning on Linux, and what only the engine sets in a request.
func clearExceptions(cfg *container.Config, hc *container.HostConfig, nc *network.NetworkingConfig) {
	cfg.ArgsEscaped = false
	hc.CPUCount, hc.CPUPercent, hc.IOMaximumIOps, hc.IOMaximumBandwidth = 0, 0, 0, 0
	if nc == nil {
		return
	}
	for _, e := range nc.EndpointsConfig {
		*e = network.EndpointSettings{IPAMConfig: e.IPAMConfig, Links: e.Links, Aliases: e.Aliases, DriverOpts: e.DriverOpts,
			GwPriority: e.GwPriority, MacAddress: e.MacAddress}
	}
}

// Everything that a create request can say comes back unchanged.
func TestCreateLosesNothing(t *testing.T) {
	var cfg container.Config
	var hc container.HostConfig
	var nc network.NetworkingConfig
	f := &filler{}
	f.fill(t, reflect.ValueOf(&cfg).Elem(), "Config")
	f.fill(t, reflect.ValueOf(&hc).Elem(), "HostConfig")
	f.fill(t, reflect.ValueOf(&nc).Elem(), "NetworkingConfig")

	body := &CreateBody{Config: &cfg, Cmd: cfg.Cmd, Entrypoint: cfg.Entrypoint, HostConfig: &HostConfigBody{HostConfig: hc}, NetworkingConfig: &nc}
	req, warnings, err := FromCreate(body, "n", "linux/amd64", 56)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 5 {
		t.Errorf("want a warning for each of 5 fields without meaning, got %q", warnings)
	}
	c := newContainer(req)
	clearExceptions(&cfg, &hc, &nc)
	for name, pair := range map[string][2]any{
		"Config": {&cfg, ToConfig(&c)}, "HostConfig": {&hc, ToHostConfig(&c.Spec)}, "NetworkingConfig": {&nc, ToNetworkingConfig(&c.Spec.Network)},
	} {
		if diff := cmp.Diff(pair[0], pair[1], comparers...); diff != "" {
			t.Errorf("%s (-sent +kept):\n%s", name, diff)
		}
	}
	if req.Name != "n" || req.Platform != "linux/amd64" || req.Image != cfg.Image {
		t.Errorf("name, platform or image lost: %+v", req)
	}
}

// An empty request stays empty: nil does not become empty or the other way round.
func TestCreateAddsNothing(t *testing.T) {
	req, warnings, err := FromCreate(&CreateBody{Config: &container.Config{Image: "i"}}, "", "", 56)
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	c := newContainer(req)
	want := &container.HostConfig{PortBindings: network.PortMap{}}
	if diff := cmp.Diff(want, ToHostConfig(&c.Spec), comparers...); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&container.Config{Image: "i"}, ToConfig(&c), comparers...); diff != "" {
		t.Error(diff)
	}
	body := &CreateBody{Config: &container.Config{Cmd: nil}, Entrypoint: StrSlice{}, HostConfig: &HostConfigBody{HostConfig: container.HostConfig{MaskedPaths: []string{}}}}
	req, _, err = FromCreate(body, "", "", 56)
	if err != nil {
		t.Fatal(err)
	}
	if req.Spec.Process.Entrypoint == nil || req.Spec.Security.MaskedPaths == nil || req.Spec.Security.ReadonlyPaths != nil {
		t.Errorf("empty lists and missing ones are mixed up: %+v %+v", req.Spec.Process, req.Spec.Security)
	}
}

func TestUpdateLosesNothing(t *testing.T) {
	var u container.UpdateConfig
	(&filler{}).fill(t, reflect.ValueOf(&u).Elem(), "Update")
	got, _ := FromUpdate(&u, 56)
	u.CPUCount, u.CPUPercent, u.IOMaximumIOps, u.IOMaximumBandwidth = 0, 0, 0, 0
	if diff := cmp.Diff(u.Resources, toResources(&got.Resources), comparers...); diff != "" {
		t.Error(diff)
	}
	if got.Restart.Name != string(u.RestartPolicy.Name) || got.Restart.MaxRetries != u.RestartPolicy.MaximumRetryCount {
		t.Error("restart policy lost")
	}
}

// Everything that the engine's spec can say reaches the client and comes back, but for what the API has no words for.
func TestSpecLosesNothing(t *testing.T) {
	var spec model.ContainerSpec
	f := &filler{}
	f.fill(t, reflect.ValueOf(&spec).Elem(), "Spec")
	spec.Network.MacAddress, spec.Storage.BindsTopRO = "", false
	for i := range spec.Network.Publish {
		b := &spec.Network.Publish[i]
		b.HostPort, b.HostPortEnd, b.Sources = uint16(100+i), uint16(200+i), nil
	}
	slices.SortFunc(spec.Network.Publish, func(a, b model.PortBinding) int { return comparePorts(a.Port, b.Port) })
	slices.SortFunc(spec.Network.Exposed, comparePorts)
	c := model.Container{Spec: spec, Image: model.ContainerImage{Ref: "i"}}
	cfg, hc, nc := ToConfig(&c), ToHostConfig(&spec), ToNetworkingConfig(&spec.Network)
	got, err := Spec(cfg, hc, nc)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, got, comparers...); diff != "" {
		t.Errorf("(-had +kept):\n%s", diff)
	}
}
