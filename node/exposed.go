package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/api/access"
	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/model"
)

// serveDoctor answers GET /shoal/doctor with a doctor.Report of the daemon's host and of the daemon itself; with only=engine
// it answers with a doctor.Engine, for those who look at the host themselves.
func (n *Node) serveDoctor(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Get("only") == "engine" {
		return answer(w, n.engineFacts(r.Context()))
	}
	facts := doctor.Collect(r.Context(), doctor.Options{DataRoot: n.cfg.Load().Daemon.DataRoot})
	facts.Engine = n.engineFacts(r.Context())
	w.Header().Set("Content-Type", "application/json")
	return doctor.WriteJSON(w, doctor.Report{Findings: doctor.Evaluate(facts), Facts: facts})
}

// engineFacts looks at the daemon's own safety.
func (n *Node) engineFacts(ctx context.Context) *doctor.Engine {
	cfg := n.cfg.Load()
	e := &doctor.Engine{Owner: n.networks.Owner(), Exposed: []doctor.Exposure{}, Open: []string{}, Sockets: []doctor.BrokenSocket{}}
	for _, h := range cfg.API.Hosts {
		if strings.HasPrefix(h, "tcp://") && !cfg.API.TLSVerify {
			e.Open = append(e.Open, h)
		}
	}
	for _, f := range n.networks.Findings() {
		e.Repairs = append(e.Repairs, doctor.Repair{Code: f.Code, What: f.What, How: f.How, Last: f.Last, Times: f.N})
	}
	for _, s := range n.front.sockets.list() {
		if s.Problem != "" {
			e.Sockets = append(e.Sockets, doctor.BrokenSocket{Name: s.Name, Problem: s.Problem})
		}
	}
	var cas *x509.CertPool
	if cfg.API.TLSVerify {
		if b, err := os.ReadFile(cfg.API.CACert); err == nil {
			cas = x509.NewCertPool()
			cas.AppendCertsFromPEM(b)
		}
	}
	secrets, except := n.secrets(), n.socketDir()
	keys := map[string]string{} // what was found below a source: containers often mount the same
	list, err := n.engine.List(ctx, model.ListOptions{All: true})
	if err != nil {
		n.log.Warn("the containers cannot be looked at", "reason", err)
	}
	for i := range list {
		for _, m := range list[i].Mounts {
			source := n.hostSource(ctx, m)
			if source == "" {
				continue
			}
			for _, what := range access.Exposed(source, secrets, except) {
				e.Exposed = append(e.Exposed, doctor.Exposure{Container: list[i].Name, Source: m.Source, What: what})
			}
			if cas == nil {
				continue
			}
			key, known := keys[source]
			if !known {
				key = clientKey(source, cas)
				keys[source] = key
			}
			if key != "" {
				e.Exposed = append(e.Exposed, doctor.Exposure{Container: list[i].Name, Source: m.Source, What: key, Key: true})
			}
		}
	}
	return e
}

// hostSource is the host's directory or file behind a mount; "" when there is none that others made.
func (n *Node) hostSource(ctx context.Context, m model.MountPoint) string {
	source := m.Source
	if m.Type == "volume" {
		v, err := n.volumes.Inspect(ctx, m.Name)
		if err != nil {
			return ""
		}
		if device := v.Options["device"]; filepath.IsAbs(device) {
			source = device
		}
	}
	if !filepath.IsAbs(source) || m.Type == "tmpfs" || m.Type == "image" {
		return ""
	}
	return resolved(source)
}

const (
	maxKeyDepth   = 3
	maxKeyEntries = 2000
	maxKeyFile    = 64 << 10
)

// clientKey looks below a directory, not far, for a certificate that this engine would let in, with a private key beside it.
// Containers may write there: links are not followed, and only small files are read.
func clientKey(source string, cas *x509.CertPool) (found string) {
	left := maxKeyEntries
	filepath.WalkDir(source, func(path string, d os.DirEntry, err error) error {
		left--
		if left < 0 {
			return filepath.SkipAll
		}
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if rel, _ := filepath.Rel(source, path); strings.Count(rel, "/") >= maxKeyDepth {
				return filepath.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(path)
		if ext != ".pem" && ext != ".crt" && ext != ".cert" && path != source {
			return nil
		}
		if cn := trusted(path, cas); cn != "" && keyBeside(path) {
			found = "a client certificate of this engine with its key (" + path + ", " + cn + ")"
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

func trusted(path string, cas *x509.CertPool) string {
	block, _ := pem.Decode(smallFile(path))
	if block == nil || block.Type != "CERTIFICATE" {
		return ""
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.IsCA {
		return ""
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: cas, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return ""
	}
	return cert.Subject.CommonName
}

func keyBeside(cert string) bool {
	files, _ := os.ReadDir(filepath.Dir(cert))
	for i, f := range files {
		if i > 100 {
			break
		}
		if strings.HasSuffix(f.Name(), ".pem") || strings.HasSuffix(f.Name(), ".key") {
			if strings.Contains(string(smallFile(filepath.Join(filepath.Dir(cert), f.Name()))), "PRIVATE KEY-----") {
				return true
			}
		}
	}
	return false
}

func smallFile(path string) []byte {
	f, err := openat.Regular(unix.AT_FDCWD, path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() > maxKeyFile {
		return nil
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxKeyFile))
	return b
}
