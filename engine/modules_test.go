package engine

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// fakeLabels is a host with SELinux.
type fakeLabels struct {
	given map[string]bool
	log   []string
}

func (f *fakeLabels) New(options []string) (string, string, error) {
	if slices.Contains(options, "disable") {
		return "", "files:free", nil
	}
	label := "proc:" + strings.Join(options, "+")
	f.given[label] = true
	return label, "files:own", nil
}
func (f *fakeLabels) Like(process string) ([]string, error) {
	return []string{"level:of-" + process}, nil
}
func (f *fakeLabels) Keep(process string)    { f.given[process] = true }
func (f *fakeLabels) Release(process string) { delete(f.given, process) }
func (f *fakeLabels) Relabel(path, files string, shared bool) error {
	f.log = append(f.log, files+map[bool]string{true: " shared", false: " private"}[shared])
	return nil
}

func TestLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		_, err := e.Create(bg, model.CreateRequest{Image: "busy", Spec: model.ContainerSpec{Security: model.SecuritySpec{Options: []string{"label=type:x_t"}}}})
		if errs.KindOf(err) != errs.Unsupported || !strings.Contains(err.Error(), "label=type:x_t: SELinux is not enabled here") {
			t.Fatal(err)
		}
		create(t, e, "disabled", func(r *model.CreateRequest) { r.Spec.Security.Options = []string{"label=disable"} })
		labels := &fakeLabels{given: map[string]bool{}}
		e.ports.Labels = labels
		dir := t.TempDir()
		a := create(t, e, "aa", func(r *model.CreateRequest) {
			r.Spec.Security.Options = []string{"label=type:x_t", "label=level:s0"}
			r.Spec.Isolation.IPC = "shareable"
			r.Spec.Storage.Binds = []string{dir + ":/own:Z", dir + ":/all:z", dir + ":/as-it-is"}
		})
		get := func(ref string) model.RuntimePlan {
			v, err := e.Inspect(bg, ref, false)
			must(t, err)
			return v.Runtime
		}
		if p := get(a); p.ProcessLabel != "proc:type:x_t+level:s0" || p.MountLabel != "files:own" {
			t.Fatalf("%+v", p)
		}
		must(t, e.Start(bg, a))
		if want := []string{"files:own private", "files:own shared"}; !slices.Equal(labels.log, want) {
			t.Fatalf("relabelled %q", labels.log)
		}
		b := create(t, e, "bb", func(r *model.CreateRequest) { r.Spec.Isolation.IPC = "container:aa" })
		if p := get(b); p.ProcessLabel != "proc:level:of-proc:type:x_t+level:s0" {
			t.Fatalf("a container that shares memory: %+v", p)
		}
		for _, change := range []func(s *model.ContainerSpec){
			func(s *model.ContainerSpec) { s.Security.Privileged = true },
			func(s *model.ContainerSpec) { s.Isolation.PID = "host" },
		} {
			id := create(t, e, "", func(r *model.CreateRequest) { change(&r.Spec) })
			if p := get(id); p.ProcessLabel != "" {
				t.Fatalf("confined: %+v", p)
			}
		}
		_, err = e.Create(bg, model.CreateRequest{Image: "busy", Spec: model.ContainerSpec{Security: model.SecuritySpec{Options: []string{"label=colour:red"}}}})
		if errs.KindOf(err) != errs.Invalid {
			t.Fatal(err)
		}
		must(t, e.Remove(bg, b, model.RemoveOptions{Force: true}))
		if len(labels.given) != 1 {
			t.Fatalf("labels held: %v", labels.given)
		}
		must(t, e.Close(bg))
	})
}

type fakeDevices []string

func (f fakeDevices) Names() []string                            { return f }
func (f fakeDevices) Dirs() []string                             { return []string{"/etc/cdi"} }
func (f fakeDevices) Inject(s *specs.Spec, names []string) error { return nil }

func TestResolveDevices(t *testing.T) {
	gpus := fakeDevices{"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=10", "nvidia.com/gpu=2", "nvidia.com/gpu=GPU-aa", "nvidia.com/gpu=all", "v.com/net=eth"}
	amd := fakeDevices{"amd.com/gpu=a", "amd.com/gpu=b"}
	gpu := [][]string{{"gpu"}}
	for name, c := range map[string]struct {
		known fakeDevices
		ask   model.DeviceRequest
		want  string // names, or "! " and a part of the refusal
	}{
		"by name":           {gpus, model.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"v.com/net=eth"}}, "v.com/net=eth"},
		"unknown":           {gpus, model.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"v.com/net=x"}}, "! unresolvable CDI device v.com/net=x"},
		"no name":           {gpus, model.DeviceRequest{Driver: "cdi"}, "! names no device"},
		"all":               {gpus, model.DeviceRequest{Count: -1, Capabilities: gpu}, "nvidia.com/gpu=all"},
		"all without all":   {amd, model.DeviceRequest{Count: -1, Capabilities: gpu}, "amd.com/gpu=a amd.com/gpu=b"},
		"three":             {gpus, model.DeviceRequest{Count: 3, Capabilities: gpu}, "nvidia.com/gpu=0 nvidia.com/gpu=1 nvidia.com/gpu=2"},
		"five":              {gpus, model.DeviceRequest{Count: 5, Capabilities: gpu}, "! there are 4"},
		"chosen":            {gpus, model.DeviceRequest{Driver: "nvidia", DeviceIDs: []string{"GPU-aa"}}, "nvidia.com/gpu=GPU-aa"},
		"both":              {gpus, model.DeviceRequest{Count: 1, DeviceIDs: []string{"0"}, Capabilities: gpu}, "! both Count and DeviceIDs"},
		"none":              {gpus, model.DeviceRequest{Capabilities: gpu}, "! asks for 0 devices"},
		"other capability":  {gpus, model.DeviceRequest{Count: 1, Capabilities: [][]string{{"tpu"}}}, "! could not select device driver"},
		"the wrong vendor":  {gpus, model.DeviceRequest{Driver: "amd", Count: 1, Capabilities: gpu}, "! could not select device driver \"amd\""},
		"options":           {gpus, model.DeviceRequest{Count: 1, Capabilities: gpu, Options: map[string]string{"a": "b"}}, "! not known"},
		"nothing described": {nil, model.DeviceRequest{Count: 1, Capabilities: gpu}, "! /etc/cdi"},
	} {
		e := &Engine{ports: Ports{Devices: c.known}}
		names, err := e.resolveDevices([]model.DeviceRequest{c.ask})
		if part, refuse := strings.CutPrefix(c.want, "! "); refuse {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, %v", name, names, err)
			}
		} else if err != nil || strings.Join(names, " ") != c.want {
			t.Errorf("%s: %v, %v", name, names, err)
		}
	}
	if _, err := (&Engine{}).resolveDevices([]model.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"a.b/c=d"}}}); err == nil || !strings.Contains(err.Error(), "switched off") {
		t.Error(err)
	}
}

// TestWrappedIDs: an image's user database must not make root out of a number that does not fit.
func TestWrappedIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.passwd["/etc/passwd"] = "big:x:4294967296:4294967296::/:/bin/sh\nnobody:x:4294967295:1::/:/bin/sh\nminus:x:-1:1::/:/bin/sh\n" +
			"last:x:100:100::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n7:x:8:8::/:/bin/sh\n"
		w.passwd["/etc/group"] = "wide:x:4294967296:last\n"
		e := w.open()
		for user, fine := range map[string]bool{"big": false, "nobody": false, "minus": false, "4294967296": false, "4294967295": false,
			"18446744073709551616": false, "0:4294967296": false, "last": false /* by the group */, "2147483647": true, "7": true} {
			id := create(t, e, "", func(r *model.CreateRequest) { r.Spec.Process.User = user })
			err := e.Start(bg, id)
			if fine != (err == nil) {
				t.Errorf("user %q: %v", user, err)
			}
			if err != nil && errs.KindOf(err) != errs.Invalid {
				t.Errorf("user %q: kind %v", user, errs.KindOf(err))
			}
		}
		must(t, e.Close(bg))
	})
}

func TestSettledPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		for name, c := range map[string]struct {
			change func(s *model.SecuritySpec)
			masked string // one that must be in the list, "" for an empty list, "nil" for none
		}{
			"default":    {func(*model.SecuritySpec) {}, "/proc/kcore"},
			"own":        {func(s *model.SecuritySpec) { s.MaskedPaths = &[]string{"/proc/x"} }, "/proc/x"},
			"unconfined": {func(s *model.SecuritySpec) { s.Options = []string{"systempaths=unconfined"} }, ""},
			"privileged": {func(s *model.SecuritySpec) { s.Privileged = true }, "nil"},
		} {
			id := create(t, e, name, func(r *model.CreateRequest) { c.change(&r.Spec.Security) })
			v, err := e.Inspect(bg, id, false)
			must(t, err)
			got := v.Spec.Security.MaskedPaths
			switch {
			case (got == nil) != (c.masked == "nil"):
				t.Errorf("%s: %v", name, got)
			case got == nil:
			case c.masked == "" && len(*got) != 0, c.masked != "" && !slices.Contains(*got, c.masked):
				t.Errorf("%s: %v", name, *got)
			}
		}
		must(t, e.Close(bg))
	})
}

func TestMountTags(t *testing.T) {
	table := "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n40 1 0:5 / /a\\040b rw shared:2 master:3 - tmpfs t rw\n41 1 0:6 / /c rw - proc p rw\n"
	for id, want := range map[uint64]string{36: "/mnt2 master:1", 40: "/a\\040b shared:2 master:3", 41: "/c", 9: ""} {
		place, tags := mountTags(table, id)
		if got := strings.TrimSpace(place + " " + strings.Join(tags, " ")); got != want {
			t.Errorf("%d: %q", id, got)
		}
	}
}
