//go:build kernel

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// at speaks to another socket of the world's daemon by the docker command line.
func at(w *world.World, path string, args ...string) world.Result {
	return w.Docker(append([]string{"-H", "unix://" + path}, args...)...)
}

func TestScopedSockets(t *testing.T) {
	w := world.New(t)
	w.Must(w.Shoal("run", "-d", "--name", "web", "--label", "team=web", "-e", "PASSWORD=hunter2", "toolbox", "sh", "-c", "echo hello; sleep 1000"))
	w.Must(w.Shoal("run", "-d", "--name", "db", "--label", "team=db", "toolbox", "sleep", "1000"))
	looker := w.Must(w.Shoal("socket", "create", "--read-only", "--label", "team=web", "looker"))
	starter := w.Must(w.Shoal("socket", "create", "--verbs", "list,restart,kill,wait", "--label", "team=web", "starter"))
	for round := range 2 { // the second one after a restart of the daemon
		if out := w.Must(at(w, looker, "ps", "--format", "{{.Names}}")); out != "web" {
			t.Fatalf("ps: %q", out)
		}
		if out := w.Must(at(w, looker, "logs", "web")); !strings.HasPrefix(out, "hello") {
			t.Errorf("logs: %q", out)
		}
		if out := w.Must(at(w, looker, "inspect", "web")); strings.Contains(out, "hunter2") || !strings.Contains(out, `"team": "web"`) {
			t.Errorf("inspect: %s", out)
		}
		w.Must(at(w, looker, "stats", "--no-stream")) // takes a second, which events need: their times are of whole seconds
		if out := w.Must(at(w, looker, "events", "--since", "10m", "--until", "0s", "--format", "{{.Actor.Attributes.name}}")); strings.Contains(out, "db") || round == 0 && !strings.Contains(out, "web") {
			t.Errorf("events: %q", out)
		}
		for _, c := range []struct{ args, want string }{
			{"container inspect db", "No such container"}, {"logs db", "No such container"}, {"stop web", `needs the verb "stop"`}, {"exec web true", "needs the full API"},
			{"run --rm toolbox true", "needs the full API"}, {"cp web:/etc/passwd -", "needs the full API"}, {"info", "needs the full API"},
			{"commit web x", "needs the full API"}, {"volume create v", "needs the full API"}, {"system df", "needs the full API"}, {"rm -f web", `needs the verb "remove"`},
		} {
			r := at(w, looker, strings.Fields(c.args)...)
			if c.args != "info" && r.Code == 0 || !strings.Contains(r.Err+r.Out, c.want) {
				t.Errorf("%s: %d %s%s", c.args, r.Code, r.Out, r.Err)
			}
		}
		w.Must(at(w, starter, "restart", "-t", "0", "web"))
		if r := at(w, starter, "kill", "db"); r.Code == 0 || !strings.Contains(r.Err, "No such container") {
			t.Errorf("kill of another's: %+v", r)
		}
		if round == 0 {
			w.StopDaemon()
			w.StartDaemon()
		}
	}
	// From inside a container that has the directory, and puts links where the socket is made.
	dir := filepath.Dir(looker)
	victim := filepath.Join(w.Dir, "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Must(w.Shoal("run", "--rm", "-v", dir+":/s", "-v", w.Dir+":/w", "toolbox", "sh", "-c", "rm -f /s/shoal.sock && ln -s "+victim+" /s/shoal.sock"))
	w.StopDaemon()
	w.StartDaemon()
	if st, err := os.Lstat(looker); err != nil || st.Mode().Type() != os.ModeSocket || st.Mode().Perm() != 0o660 {
		t.Error(st, err)
	}
	if st, err := os.Stat(victim); err != nil || st.Mode() != 0o600 {
		t.Error("a file outside was changed:", st, err)
	}
	if out := w.Must(w.Shoal("socket", "ls", "-q")); out != "looker\nstarter" {
		t.Errorf("ls: %q", out)
	}
	w.Must(w.Shoal("socket", "rm", "looker", "starter"))
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Error("the socket's directory is left:", err)
	}
	for args, want := range map[string]string{"socket create x": "good for nothing", "socket create --verbs exec x": "root on this machine",
		"socket create --read-only ../x": "socket name", "socket create --read-only -g no-such-group x": "groupadd", "socket rm x": "No such socket"} {
		if r := w.Shoal(strings.Fields(args)...); r.Code == 0 || !strings.Contains(r.Err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestAuditLog(t *testing.T) {
	dir := t.TempDir()
	w := world.New(t, "--audit-log", filepath.Join(dir, "audit.log"))
	w.Must(w.Shoal("run", "--rm", "--name", "seen", "-e", "A=hunter2", "--cap-add", "NET_ADMIN", "toolbox", "true"))
	w.Must(w.Shoal("ps"))
	w.Shoal("rm", "nothing")
	b, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil || strings.Contains(string(b), "hunter2") || !strings.Contains(string(b), `"uid":0`) || !strings.Contains(string(b), "NET_ADMIN") ||
		strings.Contains(string(b), "/containers/json") {
		t.Errorf("%v %s", err, b)
	}
	out := w.Must(w.Shoal("audit"))
	for _, want := range []string{"uid 0", "/containers/create?name=seen", "404", "No such container: nothing"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if out := w.Must(w.Shoal("audit", "--format", "json", "-n", "1")); !json.Valid([]byte(out)) || strings.Contains(out, "\n") {
		t.Errorf("%s", out)
	}
	// A log that cannot be written is told of, and does not stop the work.
	w.StopDaemon()
	w.Flag("--audit-log", "/dev/full")
	w.StartDaemon()
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
	wantIn(t, "the daemon's log", w.DaemonLog(), "code=audit-failed")
}

func TestEngineMounts(t *testing.T) {
	w := world.New(t)
	scoped := filepath.Dir(w.Must(w.Shoal("socket", "create", "--read-only", "s")))
	for _, m := range []string{w.Socket + ":/var/run/docker.sock", w.Dir + ":/host:ro", "/:/host:ro"} {
		r := w.Docker("create", "-v", m, "toolbox", "true")
		if w.Must(r); !strings.Contains(r.Err, "the engine's socket") || !strings.Contains(r.Err, "scoped socket") {
			t.Errorf("%s: %s", m, r.Err)
		}
	}
	if r := w.Docker("create", "-v", scoped+":/s", "-v", "/tmp:/t:ro", "-v", "named:/v", "toolbox", "true"); strings.Contains(r.Err, scoped) {
		t.Error(r.Err)
	}
	link := filepath.Join(w.Dir, "harmless")
	if err := os.Mkdir(link, 0o700); err != nil {
		t.Fatal(err)
	}
	w.Must(w.Shoal("create", "--name", "later", "-v", link+":/x", "toolbox", "true"))
	w.StopDaemon()
	w.Flag("--engine-mounts", "forbid")
	w.StartDaemon()
	if r := w.Docker("create", "-v", w.Socket+":/var/run/docker.sock", "toolbox", "true"); r.Code == 0 || !strings.Contains(r.Err, "forbids") {
		t.Errorf("%+v", r)
	}
	if r := w.Docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+w.Dir, "sly"); r.Code == 0 {
		if r := w.Docker("create", "-v", "sly:/x", "toolbox", "true"); r.Code == 0 || !strings.Contains(r.Err, "forbids") {
			t.Errorf("by a volume: %+v", r)
		}
		w.Docker("volume", "rm", "sly")
	}
	os.Remove(link)
	if err := os.Symlink(filepath.Dir(w.Socket), link); err != nil {
		t.Fatal(err)
	}
	if r := w.Docker("start", "later"); r.Code == 0 || !strings.Contains(r.Err, "forbids") {
		t.Errorf("a link made after the create: %+v", r)
	}
	w.Docker("volume", "rm", "named")
}

// pki is a CA with certificates for a server at 127.0.0.1 and for a client called "operator", as files in dir.
func pki(t *testing.T, dir string) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey := newKey()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	write := func(name string, c *x509.Certificate, key *ecdsa.PrivateKey) {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		kd, _ := x509.MarshalECPrivateKey(key)
		os.WriteFile(filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
		os.WriteFile(filepath.Join(dir, name+"-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kd}), 0o600)
	}
	write("ca", ca, caKey)
	for i, name := range []string{"server", "operator"} {
		write(name, &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, newKey())
	}
}

func TestTCPNeedsClientCertificates(t *testing.T) {
	dir := t.TempDir()
	pki(t, dir)
	f := func(name string) string { return filepath.Join(dir, name+".pem") }
	w := world.New(t, "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", f("ca"), "--tlscert", f("server"), "--tlskey", f("server-key"),
		"--audit-log", filepath.Join(dir, "audit.log"))
	pool := x509.NewCertPool()
	b, _ := os.ReadFile(f("ca"))
	pool.AppendCertsFromPEM(b)
	get := func(cfg *tls.Config, method, path string) (int, error) {
		cfg.RootCAs = pool
		c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true,
			DialContext: func(_ context.Context, network, addr string) (conn net.Conn, err error) {
				w.InNet(func() { conn, err = net.Dial(network, addr) })
				return conn, err
			}}}
		req, _ := http.NewRequest(method, "https://127.0.0.1:2376"+path, nil)
		resp, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	cert, err := tls.LoadX509KeyPair(f("operator"), f("operator-key"))
	if err != nil {
		t.Fatal(err)
	}
	if code, err := get(&tls.Config{}, "GET", "/_ping"); err == nil {
		t.Error("served without a certificate:", code)
	}
	if code, err := get(&tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, "GET", "/_ping"); err == nil {
		t.Error("served with TLS 1.1:", code)
	}
	if code, err := get(&tls.Config{Certificates: []tls.Certificate{cert}}, "DELETE", "/containers/nothing"); err != nil || code != 404 {
		t.Error(code, err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "audit.log")); !strings.Contains(string(b), `"cn":"operator"`) {
		t.Errorf("%s", b)
	}
}
