package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates and writes them as docker names them.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue gives a certificate for 127.0.0.1, or for another name, that ends after some time.
func (a *authority) issue(name string, ends time.Duration) (cert, key []byte) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(ends),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	kd, _ := x509.MarshalECPrivateKey(k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kd})
}

// files writes ca.pem, cert.pem and key.pem for a client into a new directory.
func (a *authority) files(signer *authority, ends time.Duration) string {
	dir := a.t.TempDir()
	cert, key := signer.issue("operator", ends)
	for name, data := range map[string][]byte{"ca.pem": a.pem, "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return dir
}

// serve is an engine behind TLS that asks clients for a certificate of a.
func (a *authority) serve(name string, ends time.Duration) string {
	cert, key := a.issue(name, ends)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.pem)
	srv := httptest.NewUnstartedServer(&recorder{special: completable})
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	a.t.Cleanup(srv.Close)
	return "tcp://" + srv.Listener.Addr().String()
}

// The ways to say TLS, with both command lines, and what is said when certificates are wrong.
func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	host := ours.serve("127.0.0.1", time.Hour)
	good, empty := ours.files(ours, time.Hour), t.TempDir()
	file := func(dir, name string) string { return filepath.Join(dir, name+".pem") }
	plain := httptest.NewServer(&recorder{special: completable})
	defer plain.Close()
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		want string // in the error; "" is success
	}{
		{"flags", nil, []string{"--tlsverify", "--tlscacert", file(good, "ca"), "--tlscert", file(good, "cert"), "--tlskey", file(good, "key")}, ""},
		{"flags without verification", nil, []string{"--tls", "--tlscert", file(good, "cert"), "--tlskey", file(good, "key")}, ""},
		{"environment", []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + good}, nil, ""},
		{"environment without verification", []string{"DOCKER_TLS=1", "DOCKER_CERT_PATH=" + good}, nil, ""},
		{"configuration directory", []string{"DOCKER_CONFIG=" + good}, []string{"--tlsverify"}, ""},
		{"the engine's certificate has expired", []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + good, "HOST=" + ours.serve("127.0.0.1", -time.Minute)}, nil, "has expired"},
		{"of another name", []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + good, "HOST=" + ours.serve("elsewhere.test", time.Hour)}, nil, "127.0.0.1"},
		{"of another authority", []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + good, "HOST=" + theirs.serve("127.0.0.1", time.Hour)}, nil, "ca.pem"},
		{"no certificate of ours", []string{"DOCKER_TLS=1", "DOCKER_CERT_PATH=" + empty}, nil, "--tlscert"},
		{"ours is of another authority", []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + ours.files(theirs, time.Hour)}, nil, "--tlscert"},
		{"ours has expired", []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + ours.files(ours, -time.Minute)}, nil, "has expired"},
		{"without TLS", nil, nil, "--tlsverify"},
		{"the engine has no TLS", []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + good, "HOST=tcp://" + plain.Listener.Addr().String()}, nil, "without --tls"},
		{"no such file", nil, []string{"--tlsverify", "--tlscacert", "/no/such.pem"}, "/no/such.pem"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := host
			env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + empty}
			for _, e := range tt.env {
				if h, ok := strings.CutPrefix(e, "HOST="); ok {
					at = h
					continue
				}
				env = append(env, e)
			}
			for _, program := range []string{"shoal", "docker"} {
				if _, err := exec.LookPath(program); err != nil {
					continue
				}
				cmd := exec.Command(program, append(append([]string{"-H", at}, tt.args...), "ps", "-q")...)
				cmd.Env = env
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				err := cmd.Run()
				t.Logf("%s: %v %s", program, err, &stderr)
				if strict := program == "shoal" || !strings.HasPrefix(tt.name, "flags without"); strict && (err == nil) != (tt.want == "") {
					t.Errorf("%s: %v, %s", program, err, &stderr)
				}
				if program == "shoal" && !strings.Contains(stderr.String(), tt.want) {
					t.Errorf("%q is not in %s", tt.want, &stderr)
				}
			}
		})
	}
}

// Contexts keep certificates, move between machines with them, and are the same for both command lines.
func TestContextsWithTLS(t *testing.T) {
	ours := newAuthority(t, "ours")
	host := ours.serve("127.0.0.1", time.Hour)
	files := ours.files(ours, time.Hour)
	first, second := t.TempDir(), t.TempDir()
	run := func(program, config string, env []string, args ...string) (string, bool) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + first, "DOCKER_CONFIG=" + config}, env...)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err == nil
	}
	must := func(program, config string, args ...string) string {
		t.Helper()
		out, ok := run(program, config, nil, args...)
		if !ok {
			t.Fatalf("%s %v: %s", program, args, out)
		}
		return out
	}
	must("shoal", first, "context", "create", "far", "--description", "over there", "--docker",
		"host="+host+",ca="+files+"/ca.pem,cert="+files+"/cert.pem,key="+files+"/key.pem")
	saved := filepath.Join(t.TempDir(), "far.dockercontext")
	must("shoal", first, "context", "export", "far", saved)
	must("shoal", second, "context", "import", "near", saved)
	if fi, err := os.Stat(saved); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("an exported key is open to others: %v %v", fi.Mode(), err)
	}
	// The default context has its certificates where the environment says.
	if out, ok := run("shoal", first, []string{"DOCKER_HOST=" + host, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + files}, "context", "create", "copied", "--docker", "from=default"); !ok {
		t.Error(out)
	}
	must("shoal", first, "--context", "copied", "ps", "-q")
	programs := []string{"shoal"}
	if _, err := exec.LookPath("docker"); err == nil {
		programs = append(programs, "docker")
		must("docker", second, "context", "import", "theirs", saved)
		must("docker", first, "context", "export", "far", saved+"2")
		must("shoal", second, "context", "import", "again", saved+"2")
		must("shoal", second, "--context", "theirs", "ps", "-q")
		must("shoal", second, "--context", "again", "ps", "-q")
	}
	must("shoal", first, "context", "create", "nobody", "--docker", "host=tcp://127.0.0.1:1")
	must("shoal", first, "context", "use", "nobody")
	for _, program := range programs {
		for _, tt := range []struct {
			name   string
			env    []string
			args   []string
			reachs bool
		}{
			{"the flag beats all", []string{"DOCKER_CONTEXT=nobody", "DOCKER_HOST=tcp://127.0.0.1:1"}, []string{"--context", "far"}, true},
			{"DOCKER_HOST beats DOCKER_CONTEXT", []string{"DOCKER_CONTEXT=far", "DOCKER_HOST=tcp://127.0.0.1:1"}, nil, false},
			{"DOCKER_CONTEXT beats the current one", []string{"DOCKER_CONTEXT=far"}, nil, true},
			{"the current one", nil, nil, false},
			{"-H beats DOCKER_CONTEXT", []string{"DOCKER_CONTEXT=far"}, []string{"-H", "tcp://127.0.0.1:1"}, false},
			{"the certificates of a context need no DOCKER_TLS_VERIFY", []string{"DOCKER_CERT_PATH=/none"}, []string{"-c", "far"}, true},
			{"both flags", nil, []string{"-c", "far", "-H", host}, false},
		} {
			out, ok := run(program, first, tt.env, append(tt.args, "ps", "-q")...)
			if ok && !strings.Contains(out, "1") || ok != tt.reachs {
				t.Errorf("%s, %s: %v %s", program, tt.name, ok, out)
			}
		}
	}
	for _, bad := range [][]string{{"host=" + host + ",ca=/none.pem"}, {"host=" + host + ",cert=" + files + "/cert.pem"}, {"host=" + host + ",certificate=x"}, {"ca=" + files + "/ca.pem,skip-tls-verify=maybe"}} {
		if out, ok := run("shoal", second, nil, "context", "create", "bad", "--docker", bad[0]); ok {
			t.Errorf("%v: %s", bad, out)
		}
	}
}
