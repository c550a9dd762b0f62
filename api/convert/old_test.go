package convert

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

// What older clients send keeps the meaning that it had in their version.
func TestOldCreates(t *testing.T) {
	for _, c := range []struct {
		body string
		v    types.Version
		fail string // part of the error
		ok   func(model.CreateRequest, []string) bool
	}{
		{`{"Image":"i","Cmd":"ls"}`, 24, "", func(r model.CreateRequest, _ []string) bool { return len(r.Spec.Process.Cmd) == 1 }},
		{`{"Image":"i","HostConfig":{"AutoRemove":true}}`, 24, "", func(r model.CreateRequest, _ []string) bool { return !r.Spec.Options.AutoRemove }},
		{`{"Image":"i","HostConfig":{"AutoRemove":true}}`, 25, "", func(r model.CreateRequest, _ []string) bool { return r.Spec.Options.AutoRemove }},
		{`{"Image":"i"}`, 39, "", func(r model.CreateRequest, _ []string) bool { return r.Spec.Isolation.IPC == "shareable" }},
		{`{"Image":"i"}`, 40, "", func(r model.CreateRequest, _ []string) bool {
			return r.Spec.Isolation.IPC == "" && r.Spec.Isolation.Cgroup == "host"
		}},
		{`{"Image":"i","HostConfig":{"KernelMemory":5,"ConsoleSize":[1,2]}}`, 41, "", func(r model.CreateRequest, w []string) bool {
			return len(w) == 1 && r.Spec.Process.ConsoleSz == [2]uint{}
		}},
		{`{"Image":"i","MacAddress":"02:00:00:00:00:01"}`, 43, "", func(r model.CreateRequest, w []string) bool {
			return r.Spec.Network.Endpoints["default"].MAC == model.MAC{2, 0, 0, 0, 0, 1} && w == nil
		}},
		{`{"Image":"i","MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"own"},"NetworkingConfig":{"EndpointsConfig":{"own":{"Aliases":["a"]}}}}`, 44, "",
			func(r model.CreateRequest, w []string) bool {
				ep := r.Spec.Network.Endpoints["own"]
				return ep.MAC == model.MAC{2, 0, 0, 0, 0, 1} && len(ep.Aliases) == 1 && len(w) == 1
			}},
		{`{"Image":"i","MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"host"}}`, 44, "exclude each other", nil},
		{`{"Image":"i","MacAddress":"02:00:00:00:00:01"}`, 52, "", func(r model.CreateRequest, w []string) bool {
			return r.Spec.Network.Endpoints == nil && len(w) == 1
		}},
		{`{"Image":"i","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}`, 43, "needs 1.44", nil},
		{`{"Image":"i","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}}`, 43, "", func(r model.CreateRequest, _ []string) bool {
			return r.Spec.Storage.Mounts[0].Bind.ReadOnlyNonRecursive
		}},
		{`{"Image":"i","HostConfig":{"Binds":["/a:/b:ro"]}}`, 43, "", func(r model.CreateRequest, _ []string) bool { return r.Spec.Storage.BindsTopRO }},
		{`{"Image":"i","HostConfig":{"Binds":["/a:/b:ro"]}}`, 44, "", func(r model.CreateRequest, _ []string) bool { return !r.Spec.Storage.BindsTopRO }},
		{`{"Image":"i","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","VolumeOptions":{}}]}}`, 41, "", func(r model.CreateRequest, _ []string) bool {
			return r.Spec.Storage.Mounts[0].Volume == nil
		}},
		{`{"Image":"i","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","VolumeOptions":{}}]}}`, 42, "VolumeOptions is for mounts of type volume", nil},
		{`{"Image":"i","HostConfig":{"Mounts":[{"Type":"image","Source":"a","Target":"/b"}]}}`, 47, "needs API version 1.48", nil},
		{`{"Image":"i","HostConfig":{"Mounts":[{"Type":"npipe","Source":"a","Target":"/b"}]}}`, 56, "Windows only", nil},
		{`{"Image":"i","HostConfig":{"PortBindings":{"80/tcp":[]}}}`, 52, "", func(r model.CreateRequest, w []string) bool {
			return len(r.Spec.Network.Publish) == 1 && len(w) == 1
		}},
		{`{"Image":"i","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"99999"}]}}}`, 52, "99999", nil},
		{`{"Image":"i","HostConfig":{"PortBindings":{"0/tcp":null}}}`, 52, "0/tcp", nil},
		{`{"Image":"i","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","kernel.x":"2"}}}`, 46, "", func(r model.CreateRequest, _ []string) bool {
			return r.Spec.Network.Endpoints["default"].DriverOpts[model.OptEndpointSysctls] == "net.ipv4.conf.IFNAME.log_martians=1" && len(r.Spec.Isolation.Sysctls) == 1
		}},
		{`{"Image":"i","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1"}}}`, 48, "", func(r model.CreateRequest, _ []string) bool {
			return len(r.Spec.Isolation.Sysctls) == 1
		}},
		{`{}`, 56, "config cannot be empty", nil},
	} {
		var b CreateBody
		if err := json.Unmarshal([]byte(c.body), &b); err != nil {
			t.Fatal(c.body, err)
		}
		r, w, err := FromCreate(&b, "", "", c.v)
		switch {
		case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)):
			t.Errorf("%s of %s: got error %v, want %q", c.body, c.v, err, c.fail)
		case c.fail == "" && err != nil:
			t.Errorf("%s of %s: %v", c.body, c.v, err)
		case c.ok != nil && !c.ok(r, w):
			t.Errorf("%s of %s: got %+v, warnings %q", c.body, c.v, r.Spec, w)
		}
	}
}

func FuzzCreate(f *testing.F) {
	f.Add([]byte(`{"Image":"i","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"1-2","HostIp":"::1"}]},"Mounts":[{"Type":"bind"}]},"MacAddress":"02:00:00:00:00:01"}`), 24)
	f.Add([]byte(`{"Image":"i","ExposedPorts":{"1":{}},"NetworkingConfig":{"EndpointsConfig":{"a":null,"b":{"IPAMConfig":{"IPv4Address":"1.2.3.4"}}}}}`), 56)
	f.Add([]byte(`{"Cmd":"x","HostConfig":{"Ulimits":[null],"BlkioWeightDevice":[null],"Dns":["1.1.1.1"]}}`), 44)
	f.Fuzz(func(t *testing.T, data []byte, v int) {
		var b CreateBody
		if json.Unmarshal(data, &b) != nil {
			return
		}
		r, _, err := FromCreate(&b, "", "", types.Version(v))
		if err != nil {
			return
		}
		c := newContainer(r)
		for _, out := range []types.Version{24, types.MaxVersion} {
			if _, err := json.Marshal(Inspect(&model.ContainerView{Container: c}, out)); err != nil {
				t.Fatalf("accepted, but cannot be shown: %v", err)
			}
		}
	})
}
