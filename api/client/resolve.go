package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// TLSOptions are the client's certificates for a tcp host: Docker's --tls, --tlsverify, --tlscacert, --tlscert, --tlskey.
type TLSOptions struct {
	Enabled bool // use TLS without checking the server
	Verify  bool // use TLS and check the server
	CA      string
	Cert    string
	Key     string
}

// Resolve chooses the server, as New does.
func Resolve(o Options) (Endpoint, error) {
	dir := o.configDir()
	cfg, err := ReadConfig(dir)
	if err != nil {
		return Endpoint{}, err
	}
	ep := Endpoint{Context: "default", headers: cfg.HTTPHeaders}
	if text := o.getenv("DOCKER_CUSTOM_HEADERS"); text != "" {
		if ep.headers, err = customHeaders(text); err != nil {
			return ep, err
		}
	}
	name, source := "", ""
	switch {
	case o.Host != "" && o.Context != "" && o.Context != "default":
		return ep, errs.New(errs.Invalid, "--host and --context were both given; they name the server twice, give one of them")
	case o.Host != "":
		ep.Host, ep.Source = o.Host, "--host"
	case o.Context != "" && o.Context != "default": // the default context is what the environment says
		name, source = o.Context, "--context"
	case o.getenv("SHOAL_HOST") != "":
		ep.Host, ep.Source = o.getenv("SHOAL_HOST"), "SHOAL_HOST"
	case o.getenv("DOCKER_HOST") != "":
		ep.Host, ep.Source = o.getenv("DOCKER_HOST"), "DOCKER_HOST"
	case o.Context != "":
	case o.getenv("DOCKER_CONTEXT") != "":
		name, source = o.getenv("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
	case cfg.CurrentContext != "":
		name, source = cfg.CurrentContext, "the current context in "+filepath.Join(dir, "config.json")
	}
	if name != "" && name != "default" {
		return fromContext(ep, dir, name, source)
	}
	if ep.Host == "" {
		ep.Host, ep.Source = DefaultHost, "the default"
	}
	if ep.Host, err = normalHost(ep.Host, o.secured(ep.Host)); err != nil {
		return ep, errs.Wrap(err, "%s", ep.Source)
	}
	ep.TLS, ep.Files, err = o.tlsConfig(ep.Host, dir)
	return ep, err
}

// customHeaders reads "NAME=VALUE,NAME=VALUE" with the quotes of CSV. They take the place of config.json's HttpHeaders.
func customHeaders(text string) (map[string]string, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	out := map[string]string{}
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if name = strings.TrimSpace(name); !ok || name == "" || out[name] != "" {
			return nil, errs.New(errs.Invalid, "DOCKER_CUSTOM_HEADERS: want NAME=VALUE,NAME=VALUE with each name once, got %q", text)
		}
		out[name] = value
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "DOCKER_CUSTOM_HEADERS: want NAME=VALUE,NAME=VALUE: %w", err)
	}
	return out, nil
}

func fromContext(ep Endpoint, dir, name, source string) (Endpoint, error) {
	c, err := LoadContext(dir, name)
	if err != nil {
		return ep, errs.Wrap(err, "%s", source)
	}
	ep.Context, ep.Source = name, "context "+name
	if ep.Host = c.Host; ep.Host == "" {
		ep.Host = DefaultHost
	}
	if ep.Host, err = normalHost(ep.Host, c.TLSDir != "" || c.SkipTLSVerify); err != nil {
		return ep, errs.Wrap(err, "context %q", name)
	}
	if strings.HasPrefix(ep.Host, "unix://") || strings.HasPrefix(ep.Host, "ssh://") || c.TLSDir == "" && !c.SkipTLSVerify {
		return ep, nil
	}
	var files TLSOptions
	for file, to := range map[string]*string{"ca.pem": &files.CA, "cert.pem": &files.Cert, "key.pem": &files.Key} {
		if path := filepath.Join(c.TLSDir, file); c.TLSDir != "" && exists(path) {
			*to = path
		}
	}
	ep.TLS, err = loadTLS(files, !c.SkipTLSVerify)
	return ep, errs.Wrap(err, "context %q", name)
}

// normalHost gives a host its scheme, and its port: that of TLS or the other.
func normalHost(host string, tls bool) (string, error) {
	switch {
	case strings.HasPrefix(host, "/"):
		return "unix://" + host, nil
	case !strings.Contains(host, "://"):
		host = "tcp://" + host
	}
	scheme, rest, _ := strings.Cut(host, "://")
	switch scheme {
	case "unix", "tcp", "http", "https", "ssh":
	default:
		return "", errs.New(errs.Invalid, "host %q: unknown scheme %q; use unix:///path, tcp://host:port, https://host:port or ssh://user@host", host, scheme)
	}
	if rest == "" {
		return "", errs.New(errs.Invalid, "host %q names no address", host)
	}
	if scheme == "unix" && !strings.HasPrefix(rest, "/") {
		return "", errs.New(errs.Invalid, "host %q: a socket's path must be absolute: unix:///path", host)
	}
	if scheme == "tcp" && !strings.Contains(rest[strings.LastIndexByte(rest, ']')+1:], ":") {
		host += map[bool]string{false: ":2375", true: ":2376"}[tls]
	}
	return host, nil
}

// secured says whether TLS is asked for.
func (o Options) secured(host string) bool {
	return o.TLS.Enabled || o.TLS.Verify || o.getenv("DOCKER_TLS_VERIFY") != "" || o.getenv("DOCKER_TLS") != "" || strings.HasPrefix(host, "https://")
}

// tlsConfig follows Docker's flags and DOCKER_TLS, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.
func (o Options) tlsConfig(host, dir string) (*tls.Config, TLSOptions, error) {
	if strings.HasPrefix(host, "unix://") || strings.HasPrefix(host, "ssh://") {
		return nil, TLSOptions{}, nil
	}
	if !o.secured(host) {
		return nil, TLSOptions{}, nil
	}
	t := o.TLS
	t.Verify = t.Verify || o.getenv("DOCKER_TLS_VERIFY") != ""
	certs := orDefault(o.getenv("DOCKER_CERT_PATH"), dir)
	for file, to := range map[string]*string{"ca.pem": &t.CA, "cert.pem": &t.Cert, "key.pem": &t.Key} {
		if path := filepath.Join(certs, file); *to == "" && exists(path) {
			*to = path
		}
	}
	cfg, err := loadTLS(t, t.Verify || !t.Enabled && strings.HasPrefix(host, "https://"))
	return cfg, t, err
}

func loadTLS(t TLSOptions, verify bool) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify}
	if t.CA != "" && verify {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, errs.Wrap(err, "read the certificate authority")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errs.New(errs.Invalid, "certificate authority %s holds no PEM certificate", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errs.New(errs.Invalid, "a client certificate needs its key and a key its certificate: got certificate %q and key %q", t.Cert, t.Key)
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, errs.New(errs.Invalid, "client certificate %s with key %s: %w", t.Cert, t.Key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
