package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/pkg/stdcopy"
)

// fixtures are what the pretended engine has.
func fixtures(now time.Time) map[string]string {
	ago := func(d time.Duration) int64 { return now.Add(-d).Unix() }
	id := strings.Repeat("0123456789abcdef", 4)
	return map[string]string{
		"/containers/json": fmt.Sprintf(`[
 {"Id":"%[1]s","Names":["/web","/db/alias"],"Image":"nginx:1.25","ImageID":"sha256:%[1]s","Command":"nginx -g 'daemon off;' with a long command line","Created":%[2]d,
  "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"},
   {"IP":"0.0.0.0","PrivatePort":9000,"PublicPort":9000,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":9001,"PublicPort":9001,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":9002,"PublicPort":9002,"Type":"udp"}],
  "SizeRw":12345,"SizeRootFs":67890123,"Labels":{"com.example.some-label":"v1","b":"2"},"State":"running","Status":"Up 3 hours (healthy)",
  "HostConfig":{"NetworkMode":"default"},"NetworkSettings":{"Networks":{"bridge":{}}},
  "Mounts":[{"Type":"volume","Name":"a-volume-with-a-very-long-name","Source":"/x","Destination":"/data","Driver":"local","RW":true},{"Type":"bind","Source":"/etc","Destination":"/e","RW":false}]},
 {"Id":"f%[1]s","Names":["/old"],"Image":"sha256:%[1]s","ImageID":"sha256:%[1]s","Command":"sh","Created":%[3]d,"Ports":[],"Labels":{},"State":"exited","Status":"Exited (1) 2 days ago","HostConfig":{},"NetworkSettings":{"Networks":{}},"Mounts":[]},
 {"Id":"e%[1]s","Names":["/dig"],"Image":"repo/app:v2@sha256:%[1]s","ImageID":"sha256:a%[1]s","Command":"","Created":%[3]d,"Ports":[{"PrivatePort":53,"Type":"udp"},{"PrivatePort":53,"Type":"tcp"},{"IP":"127.0.0.1","PrivatePort":1,"PublicPort":2,"Type":"tcp"}],"Labels":null,"State":"created","Status":"Created","HostConfig":{},"NetworkSettings":{"Networks":{}},"Mounts":[]}]`,
			id, ago(3*time.Hour), ago(60*time.Hour)),
		"/images/json": fmt.Sprintf(`[
 {"Containers":-1,"Created":%[2]d,"Id":"sha256:%[1]s","Labels":null,"ParentId":"","RepoDigests":["nginx@sha256:%[1]s"],"RepoTags":["nginx:1.25","nginx:latest"],"SharedSize":-1,"Size":187654321},
 {"Containers":-1,"Created":%[3]d,"Id":"sha256:f%[1]s","Labels":null,"ParentId":"","RepoDigests":[],"RepoTags":[],"SharedSize":-1,"Size":4321},
 {"Containers":-1,"Created":%[3]d,"Id":"sha256:d%[1]s","Labels":null,"ParentId":"","RepoDigests":null,"RepoTags":["example.org:5000/a/b:v1"],"SharedSize":-1,"Size":1234567890}]`,
			id, ago(time.Hour), ago(1000*time.Hour)),
		"/networks": `[{"Name":"net10","Id":"` + id + `","Created":"2024-05-06T07:08:09.123456789Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[]},"Internal":true,"Labels":{"x":"y"},"Options":{}},
 {"Name":"net9","Id":"b` + id + `","Created":"2024-05-06T07:08:09Z","Scope":"local","Driver":"host","EnableIPv4":true,"EnableIPv6":true,"IPAM":{"Driver":"default","Options":null,"Config":[]},"Labels":null,"Options":null}]`,
		"/volumes": `{"Volumes":[{"CreatedAt":"2024-05-06T07:08:09Z","Driver":"local","Labels":{"a":"b"},"Mountpoint":"/m/v10","Name":"v10","Options":null,"Scope":"local"},
 {"CreatedAt":"2024-05-06T07:08:09Z","Driver":"nfs","Labels":null,"Mountpoint":"/m/v9","Name":"v9","Options":{"o":"p"},"Scope":"global"}],"Warnings":null}`,
		"/images/img/history": fmt.Sprintf(`[{"Comment":"c","Created":%d,"CreatedBy":"/bin/sh -c #(nop)  CMD [\"sh\"] and something long enough to be cut off","Id":"sha256:%s","Size":0,"Tags":["img:latest"]},
 {"Comment":"","Created":%d,"CreatedBy":"ADD file","Id":"<missing>","Size":7654321,"Tags":null}]`, ago(time.Minute), id, ago(500*time.Hour)),
		"/containers/c/top":     `{"Titles":["UID","PID","CMD"],"Processes":[["root","1","sh"],["nobody","22","sleep 100"]]}`,
		"/containers/c/changes": `[{"Path":"/dev","Kind":0},{"Path":"/new","Kind":1},{"Path":"/gone","Kind":2}]`,
		"/containers/c/json": `{"Id":"` + id + `","Created":"2024-05-06T07:08:09Z","Path":"sh","Args":["-c","x"],"Name":"/c","State":{"Status":"running","Running":true,"Pid":42,"StartedAt":"2024-05-06T07:08:09Z"},
 "Image":"sha256:` + id + `","Config":{"Tty":false,"Labels":{"k":"v"},"Env":["A=1","B=2"],"Cmd":["sh"]},"HostConfig":{"NetworkMode":"bridge","Memory":1048576},"Mounts":[],"Strange":{"Kept":"as is"},
 "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"53/udp":[{"HostIp":"127.0.0.1","HostPort":"5353"}],"443/tcp":null},"Networks":{}}}`,
		"/version": `{"Platform":{"Name":"An Engine"},"Components":[{"Name":"Engine","Version":"9.8.7","Details":{"ApiVersion":"1.50","Arch":"amd64","BuildTime":"2024-05-06T07:08:09.000000000+00:00","Experimental":"false","GitCommit":"abc","GoVersion":"go1","KernelVersion":"6","MinAPIVersion":"1.24","Os":"linux"}}],
 "Version":"9.8.7","ApiVersion":"1.50","MinAPIVersion":"1.24","GitCommit":"abc","GoVersion":"go1","Os":"linux","Arch":"amd64","KernelVersion":"6","BuildTime":"2024-05-06T07:08:09.000000000+00:00"}`,
		"/info": `{"ID":"i","Containers":3,"ContainersRunning":1,"Images":2,"Driver":"overlay","DriverStatus":[["Backing Filesystem","extfs"]],"Plugins":{"Volume":["local"],"Network":["bridge","host"],"Log":["local"]},"Swarm":{"LocalNodeState":"inactive"},
 "OSType":"linux","NCPU":2,"MemTotal":8589934592,"Name":"n","ServerVersion":"9.8.7","Runtimes":{"a":{"path":"x"}},"DefaultRuntime":"a","SecurityOptions":["name=seccomp,profile=builtin","name=cgroupns"],"KernelVersion":"6","OperatingSystem":"OS","Architecture":"x86_64","DockerRootDir":"/r","Labels":["l=1"],"CgroupDriver":"cgroupfs","CgroupVersion":"2","LoggingDriver":"local"}`,
		"/events": `{"Type":"container","Action":"start","Actor":{"ID":"` + id + `","Attributes":{"image":"img","name":"web","a":"b"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}
{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{}},"scope":"local","time":1700000001,"timeNano":1700000001000000000}`,
		"/containers/c/stats": `{"id":"` + id + `","name":"/c","read":"2024-05-06T07:08:09Z","preread":"2024-05-06T07:08:08Z","num_procs":0,"pids_stats":{"current":7,"limit":100},
 "cpu_stats":{"cpu_usage":{"total_usage":300000000},"system_cpu_usage":2000000000,"online_cpus":2},"precpu_stats":{"cpu_usage":{"total_usage":100000000},"system_cpu_usage":1000000000,"online_cpus":2},
 "memory_stats":{"usage":104857600,"limit":1073741824,"stats":{"inactive_file":4857600}},"networks":{"eth0":{"rx_bytes":12345,"tx_bytes":678},"eth1":{"rx_bytes":1,"tx_bytes":2}},
 "blkio_stats":{"io_service_bytes_recursive":[{"major":8,"minor":0,"op":"Read","value":4096},{"major":8,"minor":0,"op":"Write","value":81920}]}}`,
	}
}

func logStream() []byte {
	var b bytes.Buffer
	frame := func(stream stdcopy.StdType, s string) {
		b.Write([]byte{byte(stream), 0, 0, 0, 0, 0, 0, byte(len(s))})
		b.WriteString(s)
	}
	frame(stdcopy.Stdout, "to stdout\n")
	frame(stdcopy.Stderr, "to stderr\n")
	frame(stdcopy.Stdout, "and on\n")
	return b.Bytes()
}

// TestSameOutput gives Docker's command line and ours the same engine and compares what they print.
func TestSameOutput(t *testing.T) {
	docker := dockerCLI(t)
	things := fixtures(time.Now())
	r := newRecorder(t, func(w http.ResponseWriter, req *http.Request, path string) bool {
		if body, ok := things[path]; ok {
			fmt.Fprint(w, body)
			return true
		}
		if strings.HasSuffix(path, "/logs") {
			w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
			_, _ = w.Write(logStream())
			return true
		}
		if strings.Contains(path, "nosuch") {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"No such thing: nosuch"}`)
			return true
		}
		return false
	})
	t.Setenv("DOCKER_HOST", r.host)
	t.Setenv("SHOAL_HOST", "")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, line := range readTable(t, "output.txt") {
		t.Run(line, func(t *testing.T) {
			plain, loose := strings.CutPrefix(line, "~")
			want := r.docker(t, docker, t.TempDir(), words(plain))
			got := r.shoal(t, words(plain))
			want.stderr = strings.NewReplacer("See 'docker", "Run 'shoal", "docker", "shoal").Replace(want.stderr)
			if loose {
				want.stdout, got.stdout = strings.TrimSpace(want.stdout), strings.TrimSpace(got.stdout)
				want.stderr, got.stderr = "", ""
			}
			if d := cmp.Diff(want.stdout, got.stdout); d != "" {
				t.Errorf("output differs (-docker +shoal):\n%s\ndocker:\n%s\nshoal:\n%s%s", d, want.stdout, got.stdout, got.stderr)
			}
			if d := cmp.Diff(want.stderr, got.stderr); d != "" {
				t.Errorf("error output differs (-docker +shoal):\n%s", d)
			}
			if want.code != got.code {
				t.Errorf("exit code: docker %d, shoal %d", want.code, got.code)
			}
		})
	}
}
