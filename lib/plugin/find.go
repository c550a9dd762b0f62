package plugin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// address is where a plug-in listens.
type address struct {
	network, addr string // for a dialer
	tls           *tls.Config
	text          string // for messages
}

// specFile is NAME.json.
type specFile struct {
	Name      string
	Addr      string
	TLSConfig *struct {
		InsecureSkipVerify        bool
		CAFile, CertFile, KeyFile string
	}
}

// validName keeps a name, which comes from a client, inside the directories.
func validName(name string) bool {
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return name != ""
}

var extensions = []string{".sock", ".spec", ".json"}

// candidates are the files that may say where a plug-in is, in Docker's order: sockets before files.
func (p *Plugins) candidates(name string) (out []string) {
	for _, ext := range extensions {
		for _, dir := range p.cfg.Dirs {
			out = append(out, filepath.Join(dir, name+ext), filepath.Join(dir, name, name+ext))
		}
	}
	return out
}

// find looks for a plug-in anew: what is installed may change while the daemon runs.
func (p *Plugins) find(name string) (address, error) {
	if !validName(name) {
		return address{}, errs.New(errs.NotFound, "plugin %q not found: a plug-in's name has letters, digits, _ . - only, and plug-ins that are installed as images are not offered", name)
	}
	for _, path := range p.candidates(name) {
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() {
			continue
		}
		if err != nil {
			return address{}, errs.Wrap(err, "plug-in %s", name)
		}
		if st.Mode().Type() == fs.ModeSocket {
			return address{network: "unix", addr: path, text: path}, nil
		}
		if strings.HasSuffix(path, ".sock") {
			continue
		}
		a, err := readSpec(path)
		return a, errs.Wrap(err, "plug-in %s: %s", name, path)
	}
	return address{}, errs.New(errs.NotFound, "plugin %q not found: there is no %[1]s.sock, %[1]s.spec or %[1]s.json in %s; install and start the plug-in, or choose a built-in driver",
		name, strings.Join(p.cfg.Dirs, ", "))
}

func readSpec(path string) (address, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return address{}, err
	}
	if !strings.HasSuffix(path, ".json") {
		return parseAddr(strings.TrimSpace(string(b)))
	}
	var f specFile
	if err := json.Unmarshal(b, &f); err != nil {
		return address{}, errs.New(errs.Damaged, "not JSON with the fields Name and Addr: %w", err)
	}
	a, err := parseAddr(f.Addr)
	if err != nil || f.TLSConfig == nil {
		return a, err
	}
	if a.network == "unix" {
		return a, errs.New(errs.Invalid, "TLSConfig is for addresses tcp://HOST:PORT, not for %s", f.Addr)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.TLSConfig.InsecureSkipVerify}
	if f.TLSConfig.CAFile != "" {
		pem, err := os.ReadFile(f.TLSConfig.CAFile)
		if err != nil {
			return a, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return a, errs.New(errs.Invalid, "%s has no certificate in PEM form", f.TLSConfig.CAFile)
		}
	}
	if f.TLSConfig.CertFile != "" || f.TLSConfig.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(f.TLSConfig.CertFile, f.TLSConfig.KeyFile)
		if err != nil {
			return a, err
		}
		c.Certificates = []tls.Certificate{cert}
	}
	a.tls = c
	return a, nil
}

func parseAddr(s string) (address, error) {
	u, err := url.Parse(s)
	if err != nil {
		return address{}, errs.New(errs.Invalid, "address %q: %w", s, err)
	}
	a := address{text: s}
	switch u.Scheme {
	case "unix":
		a.network, a.addr = "unix", u.Path
	case "tcp", "http":
		a.network, a.addr = "tcp", u.Host
	case "https":
		a.network, a.addr, a.tls = "tcp", u.Host, &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if a.addr == "" {
		return a, errs.New(errs.Invalid, "address %q: want unix:///PATH, tcp://HOST:PORT or https://HOST:PORT", s)
	}
	return a, nil
}

// Names lists the plug-ins that are installed, sorted, whether they run or not and whatever they implement.
func (p *Plugins) Names() []string {
	var out []string
	for _, dir := range p.cfg.Dirs {
		entries, _ := os.ReadDir(dir) // most hosts have none of the directories
		for _, e := range entries {
			for _, ext := range extensions {
				name, has := strings.CutSuffix(e.Name(), ext)
				if !has && e.IsDir() {
					_, err := os.Stat(filepath.Join(dir, name, name+ext))
					has = err == nil
				}
				if has && validName(name) {
					out = append(out, name)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
