package engine

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// TestRefusals: what cannot work is refused when it is asked for, with a sentence that names it.
func TestRefusals(t *testing.T) {
	type change = func(s *model.ContainerSpec)
	for name, c := range map[string]struct {
		change change
		text   string
	}{
		"workdir":        {func(s *model.ContainerSpec) { s.Process.WorkingDir = "tmp" }, "needs to be an absolute path"},
		"env":            {func(s *model.ContainerSpec) { s.Process.Env = []string{"=x"} }, "invalid environment variable"},
		"nul":            {func(s *model.ContainerSpec) { s.Process.Cmd = []string{"a\x00b"} }, "NUL byte"},
		"signal":         {func(s *model.ContainerSpec) { s.Stop.Signal = "SIGNOPE" }, "invalid signal: SIGNOPE"},
		"health":         {func(s *model.ContainerSpec) { s.Health = &model.Healthcheck{Interval: 1} }, "cannot be less than 1ms"},
		"health test":    {func(s *model.ContainerSpec) { s.Health = &model.Healthcheck{Test: []string{"WAT"}} }, "unknown Healthcheck"},
		"restart":        {func(s *model.ContainerSpec) { s.Restart.Name = "maybe" }, "unknown policy 'maybe'"},
		"restart count":  {func(s *model.ContainerSpec) { s.Restart = model.RestartPolicy{Name: "always", MaxRetries: 2} }, "only be used with 'on-failure'"},
		"restart and rm": {func(s *model.ContainerSpec) { s.Restart.Name, s.Options.AutoRemove = "always", true }, "AutoRemove"},
		"ipc":            {func(s *model.ContainerSpec) { s.Isolation.IPC = "loud" }, "invalid IPC mode: loud"},
		"pid":            {func(s *model.ContainerSpec) { s.Isolation.PID = "container:nobody" }, "No such container: nobody"},
		"userns":         {func(s *model.ContainerSpec) { s.Isolation.User = "me" }, "user namespace mode"},
		"sysctl":         {func(s *model.ContainerSpec) { s.Isolation.Sysctls = map[string]string{"vm.swappiness": "1"} }, "change the whole machine"},
		"sysctl net": {func(s *model.ContainerSpec) {
			s.Network.Mode, s.Isolation.Sysctls = "host", map[string]string{"net.ipv4.ip_forward": "1"}
		}, "not the container's own"},
		"hostname":      {func(s *model.ContainerSpec) { s.Network.Hostname = "a\nb" }, "invalid hostname"},
		"dns":           {func(s *model.ContainerSpec) { s.Network.Names.DNS = []string{"dns.example"} }, "want an IP address"},
		"add-host":      {func(s *model.ContainerSpec) { s.Network.Names.ExtraHosts = []string{"db"} }, "bad format for add-host"},
		"add-host line": {func(s *model.ContainerSpec) { s.Network.Names.ExtraHosts = []string{"db:1.2.3.4\n6.6.6.6 x"} }, "invalid IP address in add-host"},
		"capability":    {func(s *model.ContainerSpec) { s.Security.CapAdd = []string{"FLY"} }, "invalid capability \"FLY\""},
		"security":      {func(s *model.ContainerSpec) { s.Security.Options = []string{"magic=1"} }, "invalid --security-opt"},
		"runtime":       {func(s *model.ContainerSpec) { s.Options.Runtime = "gvisor" }, "unknown or invalid runtime name: gvisor"},
		"storage":       {func(s *model.ContainerSpec) { s.Options.StorageOpt = map[string]string{"size": "1X"} }, "want a size"},
		"log driver":    {func(s *model.ContainerSpec) { s.Log.Driver = "bogus" }, "unknown log driver"},
		"memory":        {func(s *model.ContainerSpec) { s.Resources.Memory.Limit = 1 }, "Minimum memory limit allowed is 6MB"},
		"swap":          {func(s *model.ContainerSpec) { s.Resources.Memory.Swap = 1 << 30 }, "always set the Memory limit"},
		"cpus":          {func(s *model.ContainerSpec) { s.Resources.CPU.NanoCPUs = 5e9 }, "from 0.01 to 4.00"},
		"cpuset":        {func(s *model.ContainerSpec) { s.Resources.CPU.CpusetCpus = "0-9" }, "Requested CPUs are not available"},
		"cpuset text":   {func(s *model.ContainerSpec) { s.Resources.CPU.CpusetCpus = "x" }, "Invalid value x for cpuset cpus"},
		"ulimit":        {func(s *model.ContainerSpec) { s.Resources.Ulimits = []model.Ulimit{{Name: "files"}} }, "invalid ulimit type"},
		"ulimit order":  {func(s *model.ContainerSpec) { s.Resources.Ulimits = []model.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}} }, "less than or equal to hard limit"},
		"oom score":     {func(s *model.ContainerSpec) { s.Resources.OomScoreAdj = 2000 }, "[-1000, 1000]"},
		"device rule":   {func(s *model.ContainerSpec) { s.Resources.DeviceRules = []string{"x"} }, "invalid device cgroup rule"},
		"gpus":          {func(s *model.ContainerSpec) { s.Resources.DeviceRequest = []model.DeviceRequest{{Count: -1}} }, "could not select device driver"},
		"cgroup parent": {func(s *model.ContainerSpec) { s.Resources.CgroupParent = "/../x" }, "invalid cgroup parent"},
		"bind":          {func(s *model.ContainerSpec) { s.Storage.Binds = []string{"/a:b"} }, "must be absolute"},
		"bind root":     {func(s *model.ContainerSpec) { s.Storage.Binds = []string{"/a:/"} }, "can't be '/'"},
		"bind mode":     {func(s *model.ContainerSpec) { s.Storage.Binds = []string{"/a:/b:rw,ro"} }, "contradicts"},
		"bind twice":    {func(s *model.ContainerSpec) { s.Storage.Binds = []string{"/a:/b", "/c:/b"} }, "Duplicate mount point: /b"},
		"volume name":   {func(s *model.ContainerSpec) { s.Storage.Binds = []string{"../x:/b"} }, "invalid volume name"},
		"mount missing": {func(s *model.ContainerSpec) {
			s.Storage.Mounts = []model.Mount{{Type: "bind", Source: "/no/such/place", Target: "/b"}}
		}, "bind source path does not exist: /no/such/place"},
		"mount type": {func(s *model.ContainerSpec) { s.Storage.Mounts = []model.Mount{{Type: "magic", Target: "/b"}} }, "mount type unknown"},
		"tmpfs": {func(s *model.ContainerSpec) {
			s.Storage.Mounts = []model.Mount{{Type: "tmpfs", Source: "x", Target: "/b"}}
		}, "Source must not be specified"},
		"volumes-from": {func(s *model.ContainerSpec) { s.Storage.VolumesFrom = []string{"nobody"} }, "No such container: nobody"},
		"container net": {func(s *model.ContainerSpec) {
			s.Network.Mode, s.Network.Hostname = "container:x", "y"
		}, "hostname and the network mode"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.open()
				r := model.CreateRequest{Image: "busy"}
				c.change(&r.Spec)
				_, err := e.Create(bg, r)
				if err == nil || !strings.Contains(err.Error(), c.text) {
					t.Fatalf("error %v, want one with %q", err, c.text)
				}
				if k := errs.KindOf(err); k != errs.Invalid && k != errs.Unsupported && k != errs.NotFound {
					t.Fatalf("kind %v", k)
				}
				w.empty(t)
				must(t, e.Close(bg))
			})
		})
	}
}

func TestMountsResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		dir := w.root + "/made/by/v"
		first := create(t, e, "first", func(r *model.CreateRequest) {
			r.Image = "data"
			r.Spec.Storage.Binds = []string{dir + ":/host:ro", "named:/named", "/anon"}
			r.Spec.Storage.Tmpfs = map[string]string{"/tmp": "size=1m"}
		})
		pass(time.Second)
		second := create(t, e, "second", func(r *model.CreateRequest) { r.Spec.Storage.VolumesFrom = []string{"first:ro"} })
		a, _ := e.Inspect(bg, first, false)
		b, _ := e.Inspect(bg, second, false)
		if len(a.Mounts) != 4 || len(b.Mounts) != 4 {
			t.Fatalf("%+v\n%+v", a.Mounts, b.Mounts)
		}
		for i, mp := range b.Mounts {
			if mp.RW || mp.Name != a.Mounts[i].Name {
				t.Errorf("%+v", mp)
			}
		}
		wantKind(t, e.RemoveVolume(bg, "named", false), errs.Conflict, "volume is in use - ["+second)
		must(t, e.Start(bg, first))
		var dests []string
		for _, m := range w.task(first).spec.Mounts {
			dests = append(dests, m.Destination)
		}
		for _, want := range []string{"/proc", "/dev/shm", "/etc/hosts", "/host", "/named", "/anon", "/data", "/tmp"} {
			if !slices.Contains(dests, want) {
				t.Errorf("no mount on %s: %v", want, dests)
			}
		}
		must(t, e.Remove(bg, first, model.RemoveOptions{Force: true, Volumes: true}))
		if len(w.volumes) != 3 { // the anonymous ones are the second's too
			t.Errorf("%d volumes", len(w.volumes))
		}
		must(t, e.Remove(bg, second, model.RemoveOptions{Volumes: true}))
		w.empty(t)
		must(t, e.Close(bg))
	})
}

func TestListFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		a := create(t, e, "alpha", func(r *model.CreateRequest) { r.Spec.Labels = map[string]string{"tier": "web"} })
		pass(time.Second)
		create(t, e, "beta", func(r *model.CreateRequest) { r.Image = "data"; r.Spec.Network.Mode = "none" })
		pass(time.Second)
		c := create(t, e, "gamma", func(r *model.CreateRequest) {
			r.Spec.Network.Publish = []model.PortBinding{{Port: model.Port{Number: 8080, Proto: model.TCP}}}
		})
		must(t, e.Start(bg, a))
		must(t, e.Start(bg, c))
		w.task(c).end(4)
		synctest.Wait()
		names := func(o model.ListOptions) string {
			list, err := e.List(bg, o)
			if err != nil {
				return err.Error()
			}
			var out []string
			for _, v := range list {
				out = append(out, v.Name)
			}
			return strings.Join(out, " ")
		}
		f := func(kv ...string) model.ListOptions {
			o := model.ListOptions{All: true, Filters: model.Filters{}}
			for i := 0; i < len(kv); i += 2 {
				o.Filters[kv[i]] = append(o.Filters[kv[i]], kv[i+1])
			}
			return o
		}
		for _, test := range []struct {
			opts model.ListOptions
			want string
		}{
			{model.ListOptions{}, "alpha"}, {model.ListOptions{All: true}, "gamma beta alpha"}, {model.ListOptions{Limit: 2}, "gamma beta"},
			{f("name", "a$"), "gamma beta alpha"}, {f("name", "^alp"), "alpha"}, {f("id", a[:8]), "alpha"},
			{f("label", "tier"), "alpha"}, {f("label", "tier=db"), ""}, {f("label", "from=image", "label", "tier"), "alpha"},
			{f("status", "exited"), "gamma"}, {f("status", "created", "status", "running"), "beta alpha"}, {f("exited", "4"), "gamma"},
			{f("ancestor", "data"), "beta"}, {f("before", "beta"), "alpha"}, {f("since", "alpha"), "gamma beta"},
			{f("network", "none"), "beta"}, {f("publish", "8000-8100"), "gamma"}, {f("expose", "80"), "gamma alpha"}, {f("volume", "/data"), "beta"},
			{f("health", "none"), "gamma beta alpha"}, {f("is-task", "true"), ""}, {f("status", "happy"), "invalid filter 'status=happy'; known are " + strings.Join(statuses, ", ")},
		} {
			if got := names(test.opts); got != test.want {
				t.Errorf("%v: %q, want %q", test.opts, got, test.want)
			}
		}
		_, err := e.List(bg, f("colour", "red"))
		wantKind(t, err, errs.Invalid, "invalid filter 'colour'")
		res, err := e.Prune(bg, model.Filters{"until": {"500ms"}})
		must(t, err)
		if len(res.Deleted) != 1 || res.Reclaimed != 5 {
			t.Fatalf("%+v", res)
		}
		_, err = e.RemoveImage(bg, "busy", model.ImageRemoveOptions{Force: true})
		wantKind(t, err, errs.Conflict, "(alpha); stop it first")
		must(t, e.Kill(bg, a, ""))
		must(t, e.Close(bg))
	})
}

func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "")
		must(t, e.Start(bg, id))
		r := model.UpdateRequest{Restart: model.RestartPolicy{Name: "always"}}
		r.Resources.Memory.Limit, r.Resources.CPU.NanoCPUs = 64<<20, 5e8
		_, err := e.Update(bg, id, r)
		must(t, err)
		if u := w.task(id).updated; *u.Memory.Limit != 64<<20 || *u.CPU.Quota != 50000 {
			t.Fatalf("%+v", u)
		}
		w.die(e)
		e = w.open()
		v, _ := e.Inspect(bg, id, false)
		if v.Spec.Resources.Memory.Limit != 64<<20 || v.Spec.Restart.Name != "always" {
			t.Fatalf("%+v", v.Spec)
		}
		r.Resources.Memory.Limit = 1
		_, err = e.Update(bg, id, r)
		wantKind(t, err, errs.Invalid, "Minimum memory limit")
		must(t, e.Remove(bg, id, model.RemoveOptions{Force: true}))
		must(t, e.Close(bg))
	})
}

func TestNetworksOfAContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "web")
		must(t, e.Start(bg, id))
		must(t, e.ConnectNetwork(bg, "back", "web", model.EndpointSpec{Aliases: []string{"api"}}))
		wantKind(t, e.ConnectNetwork(bg, "back", "web", model.EndpointSpec{}), errs.Forbidden, "already exists in network back")
		wantKind(t, e.RemoveNetwork(bg, "back"), errs.Forbidden, "containers: web")
		wantKind(t, e.RemoveNetwork(bg, "bridge"), errs.Forbidden, "pre-defined")
		must(t, e.DisconnectNetwork(bg, "bridge", "web", false))
		v, _ := e.Inspect(bg, id, false)
		if _, on := v.Network.Endpoints["back"]; !on || len(v.Network.Endpoints) != 1 || v.Spec.Network.Mode != "back" {
			t.Fatalf("%+v", v.Network)
		}
		share := create(t, e, "side", func(r *model.CreateRequest) { r.Spec.Network.Mode = "container:web" })
		must(t, e.Start(bg, share))
		must(t, e.Kill(bg, id, "9"))
		must(t, e.Kill(bg, share, "KILL"))
		wantKind(t, e.Start(bg, share), errs.Conflict, "non running container")
		must(t, e.Close(bg))
	})
}

func TestParsePs(t *testing.T) {
	got, err := parsePs("USER PID COMMAND\nroot 1 init here\nweb 42 nginx: worker process\n", []int{42})
	if err != nil || len(got.Processes) != 1 || got.Processes[0][2] != "nginx: worker process" {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := parsePs("USER COMMAND\n", nil); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
}

func TestTopAndStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "")
		must(t, e.Start(bg, id))
		top, err := e.Top(bg, id, "")
		must(t, err)
		if len(top.Processes) != 1 || len(top.Processes[0]) != len(top.Titles) {
			t.Fatalf("%+v", top)
		}
		s, err := e.Stats(bg, id)
		must(t, err)
		if s.CPU.SystemTotal == 0 || s.CPU.Online == 0 || s.Memory.Limit == 0 || s.Networks == nil {
			t.Fatalf("%+v", s)
		}
		must(t, e.Kill(bg, id, ""))
		must(t, e.Close(bg))
	})
}
