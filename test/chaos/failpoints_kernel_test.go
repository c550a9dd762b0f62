//go:build kernel

package chaos

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/netplugin"
	"github.com/shoalhq/shoal/test/world"
	"github.com/shoalhq/shoal/volume/plugintest"
)

var hitCall = regexp.MustCompile(`failpoint\.Hit\("([^"]+)"\)`)

// points finds every fail point in the source, so that a new one is tried without anybody thinking of it.
func points(t *testing.T) (names []string) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") || strings.Contains(p, "lib/failpoint/") {
			return err
		}
		b, err := os.ReadFile(p)
		for _, m := range hitCall.FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil || len(names) < 20 {
		t.Fatalf("the fail points of the source: %v, %v", names, err)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// notByDaemon are points that no operation of a daemon reaches, with the reason and the test that does.
var notByDaemon = map[string]string{
	"runtime/container/created":  "only `shoal-runtime create` keeps a state of its own: runtime/ocicli",
	"runtime/container/recorded": "only `shoal-runtime create` keeps a state of its own: runtime/ocicli",
}

type ordeal struct {
	t     *testing.T
	w     *world.World
	reg   *smallRegistry
	told  string
	round int
	base  world.Counts
}

func (o *ordeal) reached() string {
	b, _ := os.ReadFile(o.told)
	return string(b)
}

// step is one of the operations; each is a few commands whose failure is expected, because a point may be in the way.
type step struct {
	name string
	do   func(o *ordeal)
}

func (o *ordeal) run(args ...string) world.Result { return o.w.Shoal(args...) }

// Every operation that has fail points somewhere below it.
var steps = []step{
	{"pull", func(o *ordeal) {
		ref := o.reg.add(fmt.Sprintf("round %d", o.round))
		o.run("pull", "-q", ref)
		o.run("create", "--name", "pulled", ref)
	}},
	{"network", func(o *ordeal) { o.run("network", "create", "victims") }},
	{"volume", func(o *ordeal) { o.run("volume", "create", "victim") }},
	{"volume content", func(o *ordeal) {
		archive := filepath.Join(o.w.Dir, "backup.tar")
		o.run("volume", "create", "source")
		o.run("volume", "backup", "-o", archive, "source")
		o.run("volume", "restore", "-i", archive, "restored")
		o.run("volume", "clone", "source", "clone")
	}},
	{"socket", func(o *ordeal) { o.run("socket", "create", "--read-only", "victim") }},
	{"other volumes", func(o *ordeal) {
		dir := filepath.Join(o.w.Dir, fmt.Sprint("bound", o.round))
		os.Mkdir(dir, 0o755)
		o.run("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+dir, "bound")
		o.run("create", "--name", "bound", "-v", "bound:/etc", "toolbox")
		o.run("volume", "create", "-d", "ext", "plugged")
		o.run("run", "-d", "--name", "plugged", "-v", "plugged:/etc", "toolbox", "sleep", "1000")
	}},
	{"run", func(o *ordeal) {
		o.run("run", "-d", "--name", "victim", "-v", "filled:/etc", "-p", "127.0.0.1:8099:80", "--restart", "no", "whoami")
	}},
	{"plug-in network", func(o *ordeal) {
		o.run("network", "create", "-d", "tnet", "--ipam-driver", "tnet", "far")
		o.run("run", "--rm", "--name", "distant", "--network", "far", "toolbox", "true")
	}},
	{"update", func(o *ordeal) { o.run("update", "--memory", "64m", "--memory-swap", "64m", "victim") }},
	{"ports", func(o *ordeal) { o.run("update", "--publish-add", "127.0.0.1:8098:80", "victim") }},
	{"commit", func(o *ordeal) { o.run("commit", "victim", fmt.Sprintf("made:%d", o.round)) }},
	{"build", func(o *ordeal) {
		o.w.Build(fmt.Sprintf("t=made:b%d", o.round), world.Archive(map[string]string{"Dockerfile": fmt.Sprintf("FROM toolbox\nRUN echo %d\n", o.round)}))
	}},
	{"exec", func(o *ordeal) { o.run("exec", "victim", "/whoami", "--help") }},
	{"registry", func(o *ordeal) { o.upload() }},
	{"kill", func(o *ordeal) { o.run("kill", "victim"); o.run("wait", "victim") }},
	{"short life", func(o *ordeal) { o.run("run", "--rm", "--name", "short", "toolbox", "true") }},
	{"remove", func(o *ordeal) { o.run("rm", "-f", "victim", "pulled", "distant") }},
}

// upload puts a blob into the daemon's own registry.
func (o *ordeal) upload() {
	body := fmt.Appendf(nil, "blob %d", o.round)
	c := o.w.WebClient()
	resp, err := c.Post("http://127.0.0.1:5009/v2/team/blob/blobs/uploads/", "", nil)
	if err != nil {
		return
	}
	resp.Body.Close()
	at := resp.Header.Get("Location")
	if strings.HasPrefix(at, "/") {
		at = "http://127.0.0.1:5009" + at
	}
	sep := "?"
	if strings.Contains(at, "?") {
		sep = "&"
	}
	req, err := http.NewRequest(http.MethodPut, at+sep+"digest="+digest(body), bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if resp, err = c.Do(req); err == nil {
		resp.Body.Close()
	}
}

// dead says whether the daemon has ended. A kill that it has told of may still be on its way.
func (o *ordeal) dead(verb string) bool {
	if verb == "kill" && strings.Contains(o.reached(), fmt.Sprintf(" %d\n", o.w.DaemonPid())) {
		o.w.AwaitDaemonEnd()
		return true
	}
	select {
	case <-o.w.Ended():
		return true
	default:
		return false
	}
}

// try arms a point with an action and goes through the steps until it is reached; then it brings the daemon back.
func (o *ordeal) try(point, verb string) {
	o.round++
	os.Remove(o.told)
	arm := "SHOAL_FAILPOINTS=tell=" + o.told + ";" + point + "=" + verb
	o.w.StopDaemon()
	started := true
	if strings.HasPrefix(point, "engine/reconcile/") { // the start itself is the operation
		started = o.w.TryStartDaemon(arm) == nil
	} else {
		o.w.StartDaemon(arm)
	}
	at := "the daemon's start"
	for _, s := range steps {
		if !started || o.reached() != "" {
			break
		}
		at = s.name
		s.do(o)
	}
	if o.reached() == "" && notByDaemon[point] == "" {
		o.t.Errorf("no operation reaches the fail point %s: add one to the steps", point)
	}
	if !o.dead(verb) && started {
		o.audit(point+"="+verb+" in "+at+", the daemon still alive", true)
		o.w.StopDaemon()
	}
	if started {
		<-o.w.Ended()
	}
	o.w.StartDaemon()
	o.audit(point+"="+verb+" in "+at, false)
}

// audit removes what there is, as its owner would, and finds out whether that leaves the machine as it was and whether
// every operation works.
func (o *ordeal) audit(when string, armed bool) {
	if armed { // the point is still armed in this daemon: only ask whether it answers
		if a := o.w.API("GET", "/containers/json?all=1", nil); a.Code != 200 {
			o.t.Errorf("%s: list: %d %s %v", when, a.Code, a.Body, a.Err)
		}
		return
	}
	if ids := strings.Fields(o.run("ps", "-aq").Out); len(ids) > 0 {
		if r := o.run(append([]string{"rm", "-f", "-v"}, ids...)...); r.Code != 0 {
			o.t.Errorf("%s: remove the containers: %s", when, r.Err)
		}
	}
	for _, what := range []string{"network", "volume"} {
		for _, id := range strings.Fields(o.run(what, "ls", "-q").Out) {
			name := strings.TrimSpace(o.run(what, "inspect", "-f", "{{.Name}}", id).Out)
			if name != "bridge" && name != "host" && name != "none" {
				if r := o.run(what, "rm", id); r.Code != 0 {
					o.t.Errorf("%s: remove %s %s: %s", when, what, name, r.Err)
				}
			}
		}
	}
	for _, name := range strings.Fields(o.run("socket", "ls", "-q").Out) {
		if r := o.run("socket", "rm", name); r.Code != 0 {
			o.t.Errorf("%s: remove socket %s: %s", when, name, r.Err)
		}
	}
	if es, _ := os.ReadDir(filepath.Join(o.w.Dir, "exec/sockets")); len(es) > 1 { // one is for those on their way
		o.t.Errorf("%s: sockets left over: %v", when, es)
	}
	for _, id := range strings.Fields(o.run("images", "-q", "made").Out) {
		o.run("rmi", "-f", id)
	}
	now := o.w.Count()
	if !world.Await(func() bool { now = o.w.Count(); return now == o.base }) {
		o.t.Errorf("%s: left over: %+v, before %+v", when, now, o.base)
	}
	for _, half := range o.halfMade() {
		o.t.Errorf("%s: half-made: %s", when, half)
	}
	r := o.run("run", "--rm", "--name", "victim", "-p", "127.0.0.1:8099:80", "-v", "filled:/etc", "toolbox", "echo", "fine")
	if r.Out != "fine\n" {
		o.t.Errorf("%s: a container with the same name, port and volume: %d %s%s", when, r.Code, r.Out, r.Err)
	}
	if r := o.run("volume", "rm", "filled"); r.Code != 0 {
		o.t.Errorf("%s: remove the volume: %s", when, r.Err)
	}
}

// halfMade lists what unfinished operations leave in the data root, which a start must have cleared.
func (o *ordeal) halfMade() (left []string) {
	for _, dir := range []string{"containers", "volumes", "networks", "damaged"} {
		es, _ := os.ReadDir(filepath.Join(o.w.Dir, "data", dir))
		for _, e := range es {
			if strings.HasPrefix(e.Name(), ".") && !strings.Contains(e.Name(), "blank") || dir == "containers" && len(e.Name()) == 64 || dir == "damaged" {
				left = append(left, filepath.Join(dir, e.Name()))
			}
		}
	}
	return left
}

// TestEveryFailPoint goes through all fail points of the source, each with every way to fail.
func TestEveryFailPoint(t *testing.T) {
	plugins := t.TempDir()
	ext := plugintest.Start(t, plugins, "ext")
	w := world.New(t, "--registry-listen", "127.0.0.1:5009", "--plugin-dir", plugins)
	far, err := netplugin.Serve(plugins, "tnet", w.InNet)
	if err != nil {
		t.Fatal(err)
	}
	defer far.Stop()
	o := &ordeal{t: t, w: w, reg: newRegistry(t, w), told: filepath.Join(w.Dir, "told")}
	w.Must(w.Shoal("run", "--name", "first", "-p", "127.0.0.1:8099:80", "whoami", "--help"))
	w.Must(w.Shoal("rm", "first"))
	o.base = w.Count()
	only := os.Getenv("FAILPOINT")
	for _, p := range points(t) {
		if notByDaemon[p] != "" || only != "" && !strings.Contains(p, only) {
			continue
		}
		for _, verb := range []string{"kill", "error(asked for)", "enospc"} {
			began := time.Now()
			o.try(p, verb)
			if left := far.Left(); left != "" {
				t.Errorf("%s=%s: the network plug-in still has %s", p, verb, left)
			}
			if m := ext.Mounts("plugged"); len(m) > 0 {
				t.Errorf("%s=%s: a volume of the plug-in stays mounted: %v", p, verb, m)
			}
			t.Logf("%s=%s: %v", p, verb, time.Since(began).Round(time.Millisecond))
			if t.Failed() && os.Getenv("FAILFAST") != "" {
				return
			}
		}
	}
}
