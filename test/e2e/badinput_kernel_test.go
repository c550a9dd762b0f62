//go:build kernel

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

type object = map[string]any

// bad is one request that must be refused.
type bad struct {
	name   string
	method string
	path   string
	body   any
	code   int      // that Docker documents
	says   []string // the thing, the reason
}

func create(host object, more object) object {
	body := object{"Image": "toolbox", "Cmd": []string{"true"}, "HostConfig": host}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// badCreates are refused before anything is made.
func badCreates(dir string) []bad {
	const post, at = "POST", "/containers/create?name=bad"
	mount := func(m object) object { return create(object{"Mounts": []object{m}}, nil) }
	return []bad{
		{"malformed JSON", post, at, `{"Image": "toolbox"`, 400, nil},
		{"wrong type", post, at, `{"Image": 7}`, 400, []string{"Image"}},
		{"not an object", post, at, `[]`, 400, nil},
		{"no body", post, at, "", 400, nil},
		{"null", post, at, "null", 400, nil},
		{"no image", post, at, object{"Cmd": []string{"x"}}, 400, nil},
		{"unknown image", post, at, object{"Image": "nobody/nothing:1"}, 404, []string{"nobody/nothing:1"}},
		{"bad image name", post, at, object{"Image": "UPPER/Case"}, 400, []string{"UPPER/Case"}},
		{"bad name", post, "/containers/create?name=a%0Ab", create(nil, nil), 400, []string{"name"}},
		{"name of one letter", post, "/containers/create?name=x", create(nil, nil), 400, []string{"name"}},
		{"name taken", post, "/containers/create?name=taken", create(nil, nil), 409, []string{"taken"}},
		{"missing bind source", post, at, mount(object{"Type": "bind", "Source": dir + "/nowhere", "Target": "/x"}), 400, []string{dir + "/nowhere"}},
		{"relative target", post, at, mount(object{"Type": "bind", "Source": dir, "Target": "x"}), 400, []string{"x"}},
		{"mount on the root", post, at, mount(object{"Type": "bind", "Source": dir, "Target": "/"}), 400, []string{"/"}},
		{"unknown mount type", post, at, mount(object{"Type": "magic", "Target": "/x"}), 400, []string{"magic"}},
		{"the same target twice", post, at, create(object{"Binds": []string{dir + ":/x", dir + ":/x"}}, nil), 400, []string{"/x"}},
		{"newline in a bind", post, at, create(object{"Binds": []string{dir + ":/x\ny:ro,bogus"}}, nil), 400, nil},
		{"memory too small", post, at, create(object{"Memory": 1 << 20}, nil), 400, []string{"6"}},
		{"negative memory", post, at, create(object{"Memory": -5}, nil), 400, nil},
		{"swap below memory", post, at, create(object{"Memory": 64 << 20, "MemorySwap": 32 << 20}, nil), 400, []string{"emory"}},
		{"more CPUs than there are", post, at, create(object{"NanoCpus": 1000 * 1000000000}, nil), 400, []string{"CPU"}},
		{"CPUs twice", post, at, create(object{"NanoCpus": 1000000000, "CpuQuota": 50000}, nil), 400, nil},
		{"shares out of range", post, at, create(object{"CpuShares": -3}, nil), 400, nil},
		{"impossible cpuset", post, at, create(object{"CpusetCpus": "0-99999999999"}, nil), 400, []string{"99999999999"}},
		{"oom score out of range", post, at, create(object{"OomScoreAdj": 5000}, nil), 400, []string{"5000"}},
		{"swappiness out of range", post, at, create(object{"MemorySwappiness": 101}, nil), 400, []string{"101"}},
		{"shm negative", post, at, create(object{"ShmSize": -1}, nil), 400, nil},
		{"bad ulimit", post, at, create(object{"Ulimits": []object{{"Name": "nofile", "Soft": 20, "Hard": 10}}}, nil), 400, []string{"nofile"}},
		{"unknown ulimit", post, at, create(object{"Ulimits": []object{{"Name": "bogus", "Soft": 1, "Hard": 1}}}, nil), 400, []string{"bogus"}},
		{"unknown capability", post, at, create(object{"CapAdd": []string{"CAP_BOGUS"}}, nil), 400, []string{"BOGUS"}},
		{"unknown network mode", post, at, create(object{"NetworkMode": "container:"}, nil), 400, nil},
		{"port out of range", post, at, create(object{"PortBindings": object{"80/tcp": []object{{"HostPort": "70000"}}}}, nil), 400, []string{"70000"}},
		{"port no number", post, at, create(object{"PortBindings": object{"http/tcp": []object{{"HostPort": "1"}}}}, nil), 400, []string{"http"}},
		{"bad host address", post, at, create(object{"PortBindings": object{"80/tcp": []object{{"HostIp": "1.2.3", "HostPort": "1"}}}}, nil), 400, []string{"1.2.3"}},
		{"bad restart policy", post, at, create(object{"RestartPolicy": object{"Name": "sometimes"}}, nil), 400, []string{"sometimes"}},
		{"retries with always", post, at, create(object{"RestartPolicy": object{"Name": "always", "MaximumRetryCount": 3}}, nil), 400, nil},
		{"restart and auto-remove", post, at, create(object{"RestartPolicy": object{"Name": "always"}, "AutoRemove": true}, nil), 400, nil},
		{"unknown log driver", post, at, create(object{"LogConfig": object{"Type": "paper"}}, nil), 400, []string{"paper"}},
		{"bad log option", post, at, create(object{"LogConfig": object{"Type": "local", "Config": object{"max-size": "many"}}}, nil), 400, []string{"many"}},
		{"unknown runtime", post, at, create(object{"Runtime": "bogus"}, nil), 400, []string{"bogus"}},
		{"sysctl of the host", post, at, create(object{"Sysctls": object{"kernel.panic": "1"}}, nil), 400, []string{"kernel.panic"}},
		{"newline in a hostname", post, at, create(nil, object{"Hostname": "a\nb"}), 400, []string{"ostname"}},
		{"NUL in the environment", post, at, create(nil, object{"Env": []string{"A=b\x00c"}}), 400, nil},
		{"NUL in the command", post, at, create(nil, object{"Cmd": []string{"a\x00b"}}), 400, nil},
		{"newline in an extra host", post, at, create(object{"ExtraHosts": []string{"a:1.2.3.4\n5.6.7.8 bank"}}, nil), 400, nil},
		{"newline in a DNS option", post, at, create(object{"DnsOptions": []string{"ndots:1\nnameserver 6.6.6.6"}}, nil), 400, nil},
		{"bad DNS server", post, at, create(object{"Dns": []string{"nonsense"}}, nil), 400, []string{"nonsense"}},
		{"bad stop signal", post, at, create(nil, object{"StopSignal": "SIGBOGUS"}), 400, []string{"SIGBOGUS"}},
		{"bad health check", post, at, create(nil, object{"Healthcheck": object{"Test": []string{"CMD", "x"}, "Interval": 5}}), 400, []string{"nterval"}},
	}
}

// badCalls are refused by what is or is not there.
func badCalls() []bad {
	return []bad{
		{"gone", "POST", "/containers/nobody/start", nil, 404, []string{"nobody"}},
		{"gone", "DELETE", "/containers/nobody", nil, 404, []string{"nobody"}},
		{"gone", "GET", "/containers/nobody/logs?stdout=1", nil, 404, []string{"nobody"}},
		{"gone", "POST", "/containers/nobody/exec", object{"Cmd": []string{"x"}}, 404, []string{"nobody"}},
		{"gone", "POST", "/exec/nothing/start", object{}, 404, []string{"nothing"}},
		{"kill what does not run", "POST", "/containers/taken/kill", nil, 409, []string{"not running"}},
		{"pause what does not run", "POST", "/containers/taken/pause", nil, 409, []string{"not running"}},
		{"exec in what does not run", "POST", "/containers/taken/exec", object{"Cmd": []string{"x"}}, 409, []string{"not running"}},
		{"exec of nothing", "POST", "/containers/runs/exec", object{"Cmd": []string{}}, 400, nil},
		{"remove what runs", "DELETE", "/containers/runs", nil, 409, []string{"running"}},
		{"start what runs", "POST", "/containers/runs/start", nil, 304, nil},
		{"stop what does not run", "POST", "/containers/taken/stop", nil, 304, nil},
		{"bad signal", "POST", "/containers/runs/kill?signal=SIGBOGUS", nil, 400, []string{"SIGBOGUS"}},
		{"unpause what is not paused", "POST", "/containers/runs/unpause", nil, 409, []string{"not paused"}},
		{"rename to a taken name", "POST", "/containers/runs/rename?name=taken", nil, 409, []string{"taken"}},
		{"rename to nothing", "POST", "/containers/runs/rename?name=", nil, 400, nil},
		{"resize without numbers", "POST", "/containers/runs/resize?h=x&w=y", nil, 400, nil},
		{"logs of no stream", "GET", "/containers/runs/logs", nil, 400, []string{"stream"}},
		{"logs since nonsense", "GET", "/containers/runs/logs?stdout=1&since=yesterdayish", nil, 400, []string{"yesterdayish"}},
		{"wait for nonsense", "POST", "/containers/runs/wait?condition=sunset", nil, 400, []string{"sunset"}},
		{"missing path", "GET", "/containers/runs/archive?path=/no/such", nil, 404, []string{"/no/such"}},
		{"no path", "GET", "/containers/runs/archive", nil, 400, []string{"path"}},
		{"put no archive", "PUT", "/containers/runs/archive?path=/", "this is not a tar file, however long it may be", 400, nil},
		{"put into nowhere", "PUT", "/containers/runs/archive?path=/no/such", "", 404, []string{"/no/such"}},
		{"unknown filter", "GET", `/containers/json?filters={"bogus":["1"]}`, nil, 400, []string{"bogus"}},
		{"bad filter", "GET", `/containers/json?filters={`, nil, 400, nil},
		{"unknown image", "DELETE", "/images/nobody:1", nil, 404, []string{"nobody"}},
		{"image in use", "DELETE", "/images/toolbox", nil, 409, []string{"toolbox"}},
		{"load nonsense", "POST", "/images/load", "neither tar nor anything", 400, nil},
		{"tag wrongly", "POST", "/images/toolbox/tag?repo=UPPER", nil, 400, []string{"UPPER"}},
		{"commit wrongly", "POST", "/commit?container=runs&repo=UPPER", object{}, 400, []string{"UPPER"}},
		{"commit nobody", "POST", "/commit?container=nobody&repo=a", object{}, 404, []string{"nobody"}},
		{"volume in use", "DELETE", "/volumes/used", nil, 409, []string{"used"}},
		{"volume with a path as its name", "POST", "/volumes/create", object{"Name": "../../etc"}, 400, []string{"../../etc"}},
		{"unknown volume driver", "POST", "/volumes/create", object{"Name": "new", "Driver": "bogus"}, 404, []string{"bogus"}},
		{"network twice", "POST", "/networks/create", object{"Name": "used"}, 409, []string{"used"}},
		{"network in use", "DELETE", "/networks/used", nil, 403, []string{"used"}},
		{"built-in network", "DELETE", "/networks/bridge", nil, 403, []string{"bridge"}},
		{"network with a bad subnet", "POST", "/networks/create", object{"Name": "new", "IPAM": object{"Config": []object{{"Subnet": "10.0.0.0/99"}}}}, 400, []string{"10.0.0.0/99"}},
		{"unknown network driver", "POST", "/networks/create", object{"Name": "new", "Driver": "bogus"}, 404, []string{"bogus"}},
		{"update to the impossible", "POST", "/containers/runs/update", object{"Memory": 1024}, 400, []string{"emory"}},
		{"no such page", "GET", "/no/such/page", nil, 404, nil},
		{"version too old", "GET", "/v1.10/info", nil, 400, []string{"1.10"}},
		{"wrong method", "PATCH", "/containers/json", nil, 404, nil},
	}
}

// TestBadInput sends each line of the list and looks whether anything is left of it.
func TestBadInput(t *testing.T) {
	w := world.New(t)
	w.Must(w.Shoal("create", "--name", "taken", "toolbox", "true"))
	w.Must(w.Shoal("network", "create", "used"))
	w.Must(w.Shoal("run", "-d", "--name", "runs", "--network", "used", "-v", "used:/v", "toolbox", "sleep", "1000"))
	before := w.Count()
	for _, b := range append(badCreates(w.Dir), badCalls()...) {
		a := w.API(b.method, b.path, b.body)
		if a.Code == 201 && strings.HasPrefix(b.path, "/containers/create") {
			w.API("DELETE", "/containers/bad?force=1", nil)
		}
		if a.Code != b.code {
			t.Errorf("%s: %s %s: status %d, want %d: %s %v", b.name, b.method, b.path, a.Code, b.code, a.Body, a.Err)
			continue
		}
		if b.code >= 400 && a.Message() == "" {
			t.Errorf("%s: no message: %s", b.name, a.Body)
		}
		for _, part := range b.says {
			if !strings.Contains(a.Message(), part) {
				t.Errorf("%s: %q does not name %q", b.name, a.Message(), part)
			}
		}
	}
	want(t, "nothing half-made", fmt.Sprint(w.Count()), fmt.Sprint(before))
	want(t, "containers", w.Must(w.Shoal("ps", "-aq", "--filter", "name=bad")), "")
}

// TestBadStarts are refused when the container is started; it stays, and says why.
func TestBadStarts(t *testing.T) {
	w := world.New(t)
	w.Must(w.Shoal("run", "-d", "--name", "holder", "-p", "127.0.0.1:8095:80", "whoami"))
	notExec := filepath.Join(w.Dir, "plain")
	os.WriteFile(notExec, []byte("text"), 0o644)
	before := w.Count()
	for _, b := range []struct {
		name string
		body object
		code int
		says string
	}{
		{"missing program", object{"Image": "toolbox", "Cmd": []string{"no-such-program"}}, 400, "no-such-program"},
		{"no permission", object{"Image": "toolbox", "Cmd": []string{"/plain"}, "HostConfig": object{"Binds": []string{notExec + ":/plain"}}}, 400, "permission denied"},
		{"directory as program", object{"Image": "toolbox", "Cmd": []string{"/etc"}}, 400, "/etc"},
		{"port in use", object{"Image": "toolbox", "Cmd": []string{"true"}, "HostConfig": object{"PortBindings": object{"80/tcp": []object{{"HostIp": "127.0.0.1", "HostPort": "8095"}}}}}, 409, "8095"},
		{"bad seccomp profile", object{"Image": "toolbox", "Cmd": []string{"true"}, "HostConfig": object{"SecurityOpt": []string{"seccomp={bad"}}}, 400, "seccomp"},
		{"unknown user", object{"Image": "toolbox", "Cmd": []string{"true"}, "User": "nobodyhere"}, 400, "nobodyhere"},
		{"working directory is a file", object{"Image": "toolbox", "Cmd": []string{"true"}, "WorkingDir": "/etc/passwd"}, 400, "/etc/passwd"},
		{"network of a stopped container", object{"Image": "toolbox", "Cmd": []string{"true"}, "HostConfig": object{"NetworkMode": "container:bad0"}}, 409, "bad0"},
	} {
		w.API("POST", "/containers/create?name=bad0", object{"Image": "toolbox"})
		made := w.API("POST", "/containers/create?name=bad", b.body)
		a := made
		if made.Code == 201 {
			a = w.API("POST", "/containers/bad/start", nil)
		}
		if a.Code != b.code || !strings.Contains(a.Message(), b.says) {
			t.Errorf("%s: status %d, want %d: %s", b.name, a.Code, b.code, a.Message())
		}
		w.API("DELETE", "/containers/bad?force=1", nil)
		w.API("DELETE", "/containers/bad0?force=1", nil)
		eventually(t, b.name+": nothing half-made", func() bool { return w.Count() == before })
	}
}

// TestBadConnections: half requests, floods of them, huge headers, connections that say nothing.
func TestBadConnections(t *testing.T) {
	w := world.New(t)
	fds := world.UsageOf(w.DaemonPid()).Fds
	goroutines, _ := w.Goroutines()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			c, err := net.Dial("unix", w.Socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			switch i % 5 {
			case 0:
				c.Write([]byte("GET /containers/json HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 4<<20)))
			case 1:
				c.Write([]byte("POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"Image\":"))
			case 2:
				c.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n"))
				bufio.NewReader(c).ReadString('\n')
			case 3:
				c.Write([]byte("POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"))
			}
		})
	}
	wg.Wait()
	want(t, "the daemon answers", w.Must(w.Shoal("run", "--rm", "toolbox", "echo", "fine")), "fine")
	eventually(t, fmt.Sprintf("descriptors (%d) and goroutines (%d) as before", fds, goroutines), func() bool {
		n, _ := w.Goroutines()
		return world.UsageOf(w.DaemonPid()).Fds <= fds+4 && n <= goroutines+4
	})
}
