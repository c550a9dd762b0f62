package convert

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/system"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

var created = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

func sampleView() *model.ContainerView {
	id := strings.Repeat("0123456789abcdef", 4)
	ep := model.Endpoint{ID: strings.Repeat("e", 64), NetworkID: strings.Repeat("b", 64), Network: "bridge", ContainerID: id,
		MAC: model.MAC{2, 0x42, 0xac, 0x11, 0, 2}, IPv4: netip.MustParsePrefix("172.17.0.2/16"), Gateway4: netip.MustParseAddr("172.17.0.1"),
		Interface: "eth0", DNSNames: []string{"web", "0123456789ab"}}
	own := ep
	own.Network, own.Spec = "own", model.EndpointSpec{Aliases: []string{"www"}}
	timeout := 3
	return &model.ContainerView{
		Container: model.Container{
			ID: id, Name: "web", Created: created,
			Image: model.ContainerImage{Ref: "whoami", ID: "sha256:" + strings.Repeat("1", 64), Platform: "linux/amd64",
				Digest: "sha256:" + strings.Repeat("2", 64), Type: "application/vnd.oci.image.manifest.v1+json", Size: 500},
			Spec: model.ContainerSpec{
				Process: model.ProcessSpec{Cmd: []string{"serve", "a b"}, Entrypoint: []string{"/whoami"}, Env: []string{"A=b"}, WorkingDir: "/"},
				Labels:  map[string]string{"tier": "front"}, Stop: model.StopSpec{Signal: "SIGTERM", Timeout: &timeout},
				Restart: model.RestartPolicy{Name: "on-failure", MaxRetries: 2}, Log: model.LogConfig{Driver: "local"},
				Network: model.ContainerNetworkSpec{Mode: "bridge", Hostname: "web", Exposed: []model.Port{{Number: 80, Proto: "tcp"}, {Number: 53, Proto: "udp"}},
					Publish: []model.PortBinding{{Port: model.Port{Number: 80, Proto: "tcp"}, HostPort: 8080}}},
				Resources: model.Resources{Memory: model.MemoryResources{Limit: 1 << 26}},
				Options:   model.LifeOptions{Annotations: map[string]string{"a": "b"}},
			},
			State: model.State{Status: model.StatusRunning, Pid: 4711, StartedAt: created.Add(time.Second),
				Health: &model.HealthState{Status: "healthy", Log: []model.HealthResult{{Start: created, End: created, Output: "ok"}}}},
			Runtime: model.RuntimePlan{Name: "shoal", Path: "/whoami", Args: []string{"serve", "a b"}, LogPath: "/log"},
			Network: model.NetworkState{SandboxID: "s", SandboxKey: "/run/netns/s", Endpoints: map[string]model.Endpoint{"bridge": ep, "own": own},
				Ports: []model.PortBinding{{Port: model.Port{Number: 80, Proto: "tcp"}, HostIP: netip.IPv4Unspecified(), HostPort: 8080, HostPortEnd: 8080}}},
			Mounts: []model.MountPoint{{Type: "volume", Name: "v", Source: "/v/_data", Destination: "/data", Driver: "local", Mode: "z", RW: true}},
		},
		Size:    &model.ContainerSize{Writable: 5, RootFS: 1000},
		Overlay: &model.OverlayDirs{Lower: []string{"/l2", "/l1"}, Upper: "/u", Work: "/w"},
	}
}

func sampleImage() *model.Image {
	manifest := model.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: "sha256:" + strings.Repeat("2", 64), Size: 500}
	return &model.Image{ID: "sha256:" + strings.Repeat("1", 64), Target: manifest, Manifest: manifest,
		RepoTags: []string{"whoami:latest"}, Platform: model.Platform{OS: "linux", Architecture: "amd64"}, Size: 1000, Created: created,
		Config:  model.ImageConfig{Cmd: []string{"/whoami"}, ExposedPorts: []string{"80/tcp"}, Env: []string{"PATH=/bin"}},
		DiffIDs: []string{"sha256:" + strings.Repeat("3", 64)},
		History: []model.ImageHistory{{Created: created, CreatedBy: "built-in", Size: 1000}, {Created: created, CreatedBy: "CMD", EmptyLayer: true}}}
}

// The shapes of the versions that matter: the oldest, those where much changed, and the newest.
func TestShapesOfVersions(t *testing.T) {
	for _, v := range []types.Version{24, 30, 40, 44, 51, types.MaxVersion} {
		img := sampleImage()
		dangling := *img
		dangling.RepoTags = nil
		e := model.Event{Time: created, Type: "container", Action: "start", ID: "c1", Attrs: map[string]string{"image": "whoami", "name": "web"}, Scope: "local"}
		stats := model.Stats{Read: created, CPU: model.CPUStats{Total: 5, Online: 2, PerCPU: []uint64{2, 3}}, BlkIO: model.BlkIOStats{"io_service_bytes_recursive": {{Major: 8, Op: "Read", Value: 9}}}}
		golden(t, "v"+v.String(), map[string]any{
			"inspect":  Inspect(sampleView(), v),
			"list":     Summary(sampleView(), v, created.Add(time.Hour)),
			"image":    ImageInspect(img, nil, false, v),
			"images":   []any{ImageSummary(&model.ImageSummary{Image: *img, SharedSize: -1, Containers: 1}, v), ImageSummary(&model.ImageSummary{Image: dangling, SharedSize: -1}, v)},
			"history":  ImageHistory(img),
			"event":    Event(&e, v),
			"stats":    Stats("id", "web", &stats, nil, v),
			"info":     Info(system.Info{ID: "i", RuncCommit: system.Commit{ID: "x"}, SecurityOptions: []string{"name=seccomp,profile=builtin"}}, v),
			"networks": Network(&model.Network{ID: "n", Created: created, NetworkSpec: model.NetworkSpec{Name: "own", Driver: "bridge", IPv4: true, IPAM: model.IPAM{Pools: []model.IPPool{{Subnet: netip.MustParsePrefix("10.0.0.0/24")}}}}}),
		})
	}
}

func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s changed; look at the difference after \"go test ./api/convert -update\" and keep it only if clients expect it", path)
	}
}

func TestStatusText(t *testing.T) {
	for want, s := range map[string]model.State{
		"Up 2 minutes":                    {Status: model.StatusRunning, StartedAt: created},
		"Up 2 minutes (health: starting)": {Status: model.StatusRunning, StartedAt: created, Health: &model.HealthState{Status: "starting"}},
		"Up 2 minutes (Paused)":           {Status: model.StatusPaused, StartedAt: created},
		"Exited (3) 2 minutes ago":        {Status: model.StatusExited, FinishedAt: created, ExitCode: 3},
		"Restarting (1) 2 minutes ago":    {Status: model.StatusRestarting, FinishedAt: created, ExitCode: 1},
		"Created":                         {Status: model.StatusCreated},
		"Removal In Progress":             {Status: model.StatusRemoving},
		"Dead":                            {Status: model.StatusDead},
	} {
		if got := StatusText(&s, created.Add(2*time.Minute)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
