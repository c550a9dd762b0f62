//go:build kernel

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// dockerd is a Docker of another make, with everything of its own.
type dockerd struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	ends chan error
}

func startDockerd(t *testing.T) *dockerd {
	path, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skip("dockerd is not installed")
	}
	return startDockerdOf(t, filepath.Dir(path), "{}")
}

// startDockerdOf starts the dockerd of a directory, with the containerd and runc that are there, if any.
func startDockerdOf(t *testing.T, bin, config string) *dockerd {
	d := &dockerd{t: t, dir: t.TempDir()}
	if err := os.WriteFile(d.dir+"/daemon.json", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.Command(filepath.Join(bin, "dockerd"), "--data-root", d.root(), "--exec-root", d.dir+"/exec", "--pidfile", d.dir+"/pid", "-H", "unix://"+d.dir+"/sock",
		"--config-file", d.dir+"/daemon.json", "--iptables=false", "--ip-masq=false")
	d.cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.ends = make(chan error, 1)
	go func() { d.ends <- d.cmd.Wait() }()
	t.Cleanup(d.stop)
	eventually(t, "dockerd answers", func() bool { return exec.Command("docker", "-H", "unix://"+d.dir+"/sock", "version").Run() == nil })
	return d
}

func (d *dockerd) root() string { return d.dir + "/data" }

func (d *dockerd) docker(args ...string) string {
	d.t.Helper()
	cmd := exec.Command("docker", append([]string{"-H", "unix://" + d.dir + "/sock"}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("docker %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (d *dockerd) stop() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(unix.SIGTERM)
	<-d.ends
	d.cmd = nil
}

const importDockerfile = `FROM scratch
ADD busybox /bin/busybox
RUN ["/bin/busybox","sh","-c","/bin/busybox --install -s /bin; mkdir -p /data/a; echo one >/data/a/one; echo two >/data/a/two; ln /data/a/two /data/a/hard; mkfifo /data/fifo; ln -s /etc/shadow /data/link; mkdir /srv; echo old >/srv/old"]
RUN rm /data/a/one
VOLUME /vol
HEALTHCHECK CMD true
`

// prepareDocker fills a Docker with one of each, and tells the image's ID and layers.
func prepareDocker(t *testing.T, d *dockerd) string {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	src := t.TempDir()
	for name, data := range map[string][]byte{"busybox": program, "Dockerfile": []byte(importDockerfile)} {
		if err := os.WriteFile(filepath.Join(src, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.docker("build", "-q", "-t", "app:1", src)
	d.docker("tag", "app:1", "registry.example:5000/team/app:2")
	d.docker("network", "create", "--subnet", "10.177.0.0/24", "--label", "l=1", "--internal", "back")
	d.docker("network", "create", "-o", "com.docker.network.bridge.name=br-moved", "front")
	d.docker("volume", "create", "--label", "vl=1", "data")
	d.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "ram")
	d.docker("run", "-d", "--name", "web", "--network", "back", "--ip", "10.177.0.9", "--network-alias", "w", "-v", "data:/d", "-e", "A=b", "-p", "18080:80",
		"--memory", "64m", "--restart", "unless-stopped", "--label", "c=1", "app:1", "sh", "-c",
		"echo hi >/d/file; chown 5:6 /d/file; echo v >/vol/v; rm /data/a/two; rm -r /srv; mkdir /srv; echo new >/srv/new; sleep 1000")
	d.docker("create", "--name", "side", "--network", "container:web", "--volumes-from", "web", "-h", "", "app:1", "true")
	d.docker("create", "--name", "asker", "--network", "front", "-h", "fixed", "registry.example:5000/team/app:2", "cat", "/etc/hostname")
	eventually(t, "web has written", func() bool {
		return exec.Command("docker", "-H", "unix://"+d.dir+"/sock", "exec", "web", "test", "-s", "/srv/new").Run() == nil
	})
	d.docker("stop", "-t", "0", "web")
	return d.docker("image", "inspect", "-f", "{{.RootFS.Layers}}", "app:1")
}

// A stopped Docker is taken over, with everything as it was; twice does nothing the second time.
func TestImportDocker(t *testing.T) {
	d := startDockerd(t)
	w := takeOver(t, d)
	damagedDocker(t, w, d)
}

// The same of Docker 29, with its images in a containerd, which is its default, and with its own.
func TestImportDocker29(t *testing.T) {
	bin := os.Getenv("DOCKER29_BIN")
	if bin == "" {
		t.Skip("DOCKER29_BIN does not name the directory of a newer dockerd; scripts/docker29 makes one")
	}
	for store, config := range map[string]string{
		"containerd": `{"features":{"containerd-snapshotter":true}}`,
		"overlay2":   `{"features":{"containerd-snapshotter":false},"storage-driver":"overlay2"}`,
	} {
		t.Run(store, func(t *testing.T) { takeOver(t, startDockerdOf(t, bin, config)) })
	}
}

// takeOver fills a Docker, takes it over, and looks for everything.
func takeOver(t *testing.T, d *dockerd) *world.World {
	layers := prepareDocker(t, d)
	w := world.New(t)
	r := w.Shoal("import-docker", "--from", d.root())
	if r.Code == 0 || !strings.Contains(r.Err, "a Docker runs on "+d.root()) || !strings.Contains(r.Err, "systemctl stop") {
		t.Errorf("of a Docker that runs: %+v", r)
	}
	d.stop()
	if out := w.Must(w.Shoal("import-docker", "--from", d.root(), "--dry-run")); strings.Count(out, "planned") != 10 {
		t.Errorf("--dry-run:\n%s", out)
	}
	want(t, "nothing was made", w.Must(w.Docker("volume", "ls", "-q")), "")
	w.InNet(func() { exec.Command("ip", "link", "add", "br-moved", "type", "bridge").Run() }) // Docker leaves its bridges
	out := w.Must(w.Shoal("import-docker", "--from", d.root()))
	if strings.Count(out, "imported") != 10 || !strings.Contains(out, "br-moved that Docker had left was removed") {
		t.Errorf("import:\n%s", out)
	}
	want(t, "layers", w.Must(w.Docker("image", "inspect", "-f", "{{.RootFS.Layers}}", "registry.example:5000/team/app:2")), layers)
	want(t, "network", w.Must(w.Docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}} {{.Internal}} {{.Labels.l}}", "back")), "10.177.0.0/24 true 1")
	want(t, "volume", w.Must(w.Docker("volume", "inspect", "-f", "{{.Labels.vl}}", "data")), "1")
	want(t, "options", w.Must(w.Docker("volume", "inspect", "-f", "{{.Options.type}}", "ram")), "tmpfs")
	want(t, "web", w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}} {{index .Config.Labels `c`}} "+
		"{{(index .NetworkSettings.Networks.back.Aliases 0)}} {{(index (index .HostConfig.PortBindings `80/tcp`) 0).HostPort}}", "web")), "created unless-stopped 67108864 1 w 18080")
	changes := w.Must(w.Docker("diff", "web"))
	for _, c := range []string{"D /data/a/two", "A /srv/new", "D /srv/old"} {
		if !strings.Contains(changes, c) {
			t.Errorf("no %q in its changes:\n%s", c, changes)
		}
	}
	w.Must(w.Docker("run", "--rm", "-v", "data:/d", "--volumes-from", "side", "app:1", "sh", "-c",
		`[ "$(cat /d/file /vol/v)" = "hi
v" ] && [ "$(stat -c %u:%g /d/file)" = 5:6 ] && [ ! -e /data/a/one ] && [ "$(stat -c %h /data/a/hard)" = 2 ]`))
	want(t, "its own name", w.Must(w.Docker("start", "-a", "asker")), "fixed")
	w.Must(w.Docker("start", "web"))
	want(t, "address", w.Must(w.Docker("inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", "web")), "10.177.0.9")
	w.Must(w.Docker("rm", "-f", "web"))
	out = w.Must(w.Shoal("import-docker", "--from", d.root()))
	if strings.Count(out, "present") != 9 || strings.Count(out, "imported") != 1 {
		t.Errorf("again:\n%s", out)
	}
	w.Must(w.Docker("rm", "-f", "web", "side", "asker"))
	w.Must(w.Docker("volume", "rm", "data"))
	out = w.Must(w.Shoal("import-docker", "--from", d.root(), "--move"))
	if !strings.Contains(out, "data  (moved)") {
		t.Errorf("move:\n%s", out)
	}
	if left, err := os.ReadDir(d.root() + "/volumes/data/_data"); err != nil || len(left) != 0 {
		t.Errorf("left in Docker's volume: %v %v", left, err)
	}
	want(t, "moved", w.Must(w.Docker("run", "--rm", "-v", "data:/d", "app:1", "cat", "/d/file")), "hi")
	w.Must(w.Docker("rm", "-f", "web", "side", "asker"))
	return w
}

// damagedDocker takes over what is damaged: each thing that is not whole is named, and the others come.
func damagedDocker(t *testing.T, w *world.World, d *dockerd) {
	w.Must(w.Docker("rmi", "-f", "app:1", "registry.example:5000/team/app:2"))
	layers, _ := filepath.Glob(d.root() + "/overlay2/*/diff/bin/busybox")
	records, _ := filepath.Glob(d.root() + "/containers/*/hostconfig.json")
	if len(layers) == 0 || len(records) != 3 {
		t.Fatalf("%v %v", layers, records)
	}
	for _, f := range append(layers, records[0]) {
		if err := os.WriteFile(f, []byte("{damaged"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := w.Shoal("import-docker", "--from", d.root())
	if r.Code != 1 || strings.Count("\n"+r.Out, "\nfailed ") != 4 || !strings.Contains(r.Out, "bin/busybox") || !strings.Contains(r.Out, "hostconfig.json") {
		t.Errorf("damaged: %+v", r)
	}
	if r := w.Docker("image", "inspect", "app:1"); r.Code == 0 {
		t.Error("a damaged image was recorded")
	}
	for dir, why := range map[string]string{"/nowhere": "there is no /nowhere", t.TempDir(): "is not Docker's data", "relative": "no absolute path"} {
		if r := w.Shoal("import-docker", "--from", dir); r.Code == 0 || !strings.Contains(r.Err, why) {
			t.Errorf("%s: %+v", dir, r)
		}
	}
}

// containerdDocker makes the data of a Docker that keeps its images in a containerd, by containerd's own packages: an index of
// two platforms of which one is there, and a container with a changed file.
func containerdDocker(t *testing.T, id string) (root string, top digest.Digest) {
	root = t.TempDir()
	ctx := namespaces.WithNamespace(context.Background(), "moby")
	at := func(p string) string { return filepath.Join(root, "containerd/daemon", p) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(at("io.containerd.metadata.v1.bolt"), 0o700))
	blobs, err := local.NewStore(at("io.containerd.content.v1.content"))
	must(err)
	snaps, err := overlay.NewSnapshotter(at("io.containerd.snapshotter.v1.overlayfs"))
	must(err)
	db, err := bbolt.Open(at("io.containerd.metadata.v1.bolt/meta.db"), 0o600, nil)
	must(err)
	m := metadata.NewDB(db, blobs, map[string]snapshots.Snapshotter{"overlayfs": snaps})
	must(m.Init(ctx))
	put := func(kind string, v any) ocispec.Descriptor {
		data, raw := v.([]byte)
		if !raw {
			data, err = json.Marshal(v)
			must(err)
		}
		desc := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
		must(content.WriteBlob(ctx, m.ContentStore(), string(desc.Digest), strings.NewReader(string(data)), desc))
		return desc
	}
	layer := world.Archive(map[string]string{"file": "below"})
	config := put(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}})
	manifest := put(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, layer)}})
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 7, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}
	index := put(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{absent, manifest}})
	_, err = metadata.NewImageStore(m).Create(ctx, images.Image{Name: "docker.io/library/many:1", Target: index})
	must(err)
	mounts, err := m.Snapshotter("overlayfs").Prepare(ctx, id, "")
	must(err)
	must(mount.WithTempMount(ctx, mounts, func(dir string) error { return os.WriteFile(dir+"/changed", []byte("yes"), 0o644) }))
	dir := filepath.Join(root, "containers", id)
	must(os.MkdirAll(dir, 0o700))
	must(os.MkdirAll(filepath.Join(root, "volumes"), 0o700))
	must(os.WriteFile(dir+"/config.v2.json", []byte(`{"ID":"`+id+`","Name":"/kept","Image":"`+index.Digest.String()+`","Driver":"overlayfs","State":{},
		"Config":{"Image":"many:1","Cmd":["/x"],"Hostname":"`+id[:12]+`"},"NetworkSettings":{"Networks":{"bridge":{"Aliases":null,"DesiredMacAddress":"02:00:00:00:12:34"}}}}`), 0o600))
	must(os.WriteFile(dir+"/hostconfig.json", []byte(`{"NetworkMode":"bridge","RestartPolicy":{"Name":"no"}}`), 0o600))
	t.Cleanup(func() { db.Close(); snaps.Close() })
	return root, index.Digest // db stays open: the machine's containerd runs
}

func TestImportDockerFromContainerd(t *testing.T) {
	id := strings.Repeat("0c", 32)
	root, top := containerdDocker(t, id)
	w := world.New(t)
	out := w.Must(w.Shoal("import-docker", "--from", root))
	if strings.Count(out, "imported") != 2 {
		t.Errorf("import:\n%s", out)
	}
	w.Must(w.Docker("image", "inspect", top.String()))
	w.Must(w.Docker("cp", "kept:/changed", w.Dir+"/changed"))
	want(t, "id and address", w.Must(w.Docker("inspect", "-f", "{{.Config.Image}} {{.NetworkSettings.Networks.bridge.MacAddress}}", "kept")), "many:1 02:00:00:00:12:34")
	if out := w.Must(w.Shoal("import-docker", "--from", root)); strings.Count(out, "present") != 2 {
		t.Errorf("again:\n%s", out)
	}
}
