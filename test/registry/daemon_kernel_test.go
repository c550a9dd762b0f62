//go:build kernel

package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// The whole way through the daemon, with both command lines: a registry inside the daemon takes an image and gives it back.
func TestThroughTheDaemon(t *testing.T) {
	w := world.New(t, "--registry-listen", "127.0.0.1:5000")
	for name, run := range map[string]func(...string) world.Result{"docker": w.Docker, "shoal": w.Shoal} {
		t.Run(name, func(t *testing.T) {
			ref := "127.0.0.1:5000/" + name + "/toolbox:1"
			w.Must(run("run", "--rm", "toolbox", "true")) // brings the built-in image in
			w.Must(run("tag", "toolbox", ref))
			if out := w.Must(run("push", ref)); !strings.Contains(out, "1: digest: sha256:") {
				t.Error(out)
			}
			w.Must(run("rmi", ref))
			out := w.Must(run("pull", ref))
			for _, part := range []string{"1: Pulling from " + name + "/toolbox", "Digest: sha256:", "Status: Downloaded newer image for " + ref} {
				if !strings.Contains(out, part) {
					t.Errorf("%q is not in\n%s", part, out)
				}
			}
			if out := w.Must(run("run", "--rm", "--pull", "always", ref, "echo", "hello")); !strings.HasSuffix(out, "hello") {
				t.Error(out)
			}
			w.Must(run("rmi", ref))
			if out := w.Must(run("run", "--rm", ref, "echo", "again")); !strings.HasSuffix(out, "again") { // pulls what is missing
				t.Error(out)
			}
			if r := run("pull", "127.0.0.1:5000/none:1"); r.Code == 0 || !strings.Contains(r.Err, "manifest unknown") {
				t.Errorf("%+v", r)
			}
			// No network leads to Docker Hub from here: what is built in still is.
			if out := w.Must(run("pull", "toolbox")); !strings.Contains(out, "is built in") {
				t.Error(out)
			}
			if r := run("pull", "no-such-image"); r.Code == 0 || !strings.Contains(r.Err, "cannot be reached") {
				t.Errorf("%+v", r)
			}
			if r := run("search", "127.0.0.1:5000/tool"); r.Code == 0 || !strings.Contains(r.Err, "offers no search") {
				t.Errorf("%+v", r)
			}
		})
	}
	res, err := w.Client().Get("http://shoal/v1.47/distribution/127.0.0.1:5000/shoal/toolbox:1/json")
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
	t.Run("skopeo", func(t *testing.T) {
		if _, err := exec.LookPath("skopeo"); err != nil {
			t.Skip("skopeo is not installed")
		}
		var out []byte
		var err error
		dir := t.TempDir()
		w.InNet(func() {
			out, err = exec.Command("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "docker://127.0.0.1:5000/shoal/toolbox:1", "oci:"+filepath.Join(dir, "oci")).CombinedOutput()
		})
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
	})
}

// Credentials travel from either command line's store to the registry, and a registry in a process of its own has TLS.
func TestLoginThroughTheDaemon(t *testing.T) {
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("s3cret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := selfSigned(t, dir)
	const addr = "127.0.0.1:5443"
	w := world.New(t)
	cmd := w.Command(world.Bin(t, "shoal"), "registry", "serve", "--listen", addr, "--root", filepath.Join(dir, "registry"), "--users", users, "--tls-cert", cert, "--tls-key", key)
	w.InNet(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error("the registry did not end well:", err)
		}
	})
	for name, run := range map[string]func(...string) world.Result{"docker": w.Docker, "shoal": w.Shoal} {
		ref := addr + "/" + name + ":1"
		w.Must(run("run", "--rm", "toolbox", "true"))
		w.Must(run("tag", "toolbox", ref))
		until(t, "the registry answers", func() bool { return strings.Contains(run("push", ref).Err, "denied") })
		if r := run("login", "-u", "ann", "-p", "wrong", addr); r.Code == 0 || !strings.Contains(r.Err, "unauthorized") {
			t.Fatalf("%s: %+v", name, r)
		}
		w.Must(run("login", "-u", "ann", "-p", "s3cret", addr))
		w.Must(run("push", ref))
		w.Must(run("rmi", ref))
		w.Must(run("pull", ref))
		w.Must(run("logout", addr))
		if r := run("pull", ref); r.Code == 0 || !strings.Contains(r.Err, "pull access denied") {
			t.Fatalf("%s: %+v", name, r)
		}
	}
}

func selfSigned(t *testing.T, dir string) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
