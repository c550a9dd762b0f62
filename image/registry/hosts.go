package registry

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// hubHost is where the registry of the default domain listens.
const hubHost = "registry-1.docker.io"

// hosts lists where the operation's repository may be found: mirrors first, for reading only, then the registry itself.
func (o *operation) hosts() ([]docker.RegistryHost, error) {
	var list []docker.RegistryHost
	for _, m := range o.settings.Mirrors {
		u, ok, err := mirrorFor(m, o.ref)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		client, scheme, err := o.client(u.Host, u.Scheme, "")
		if err != nil {
			return nil, err
		}
		// A mirror is another machine: it never sees the credentials.
		list = append(list, docker.RegistryHost{Client: client, Host: u.Host, Scheme: scheme,
			Path: strings.TrimSuffix(u.Path, "/") + "/v2", Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
			Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(tokenClient(client)))})
	}
	host := o.ref.Domain
	if host == model.DefaultDomain {
		host = hubHost
	}
	client, scheme, err := o.client(host, "https", o.ref.Path)
	if err != nil {
		return nil, err
	}
	main := docker.RegistryHost{Client: client, Host: host, Scheme: scheme, Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush | docker.HostCapabilityReferrers}
	if o.auth != nil && o.auth.RegistryToken != "" {
		main.Header = http.Header{"Authorization": {"Bearer " + o.auth.RegistryToken}}
	} else {
		main.Authorizer = docker.NewDockerAuthorizer(docker.WithAuthClient(tokenClient(client)), docker.WithAuthCreds(o.credentialsFor(host)))
	}
	return append(list, main), nil
}

// credentialsFor gives the name and secret for one host only: one that a redirect leads to must not get them.
func (o *operation) credentialsFor(host string) func(string) (string, string, error) {
	return func(asked string) (string, string, error) {
		if o.auth == nil || asked != host {
			return "", "", nil
		}
		if o.auth.IdentityToken != "" {
			return "", o.auth.IdentityToken, nil
		}
		if o.auth.Username == "" && o.auth.Auth != "" {
			data, err := base64.StdEncoding.DecodeString(o.auth.Auth)
			user, password, ok := strings.Cut(string(data), ":")
			if err != nil || !ok {
				return "", "", errs.New(errs.Invalid, "the credentials for %s are not base64 of name:password; log in again", host)
			}
			return user, strings.TrimRight(password, "\x00"), nil
		}
		return o.auth.Username, o.auth.Password, nil
	}
}

// mirrorFor says whether the mirror "[PREFIX=]URL" stands in for the repository. Without prefix it is Docker Hub's.
func mirrorFor(mirror string, ref model.Reference) (*url.URL, bool, error) {
	prefix, address, ok := strings.Cut(mirror, "=")
	if !ok || strings.Contains(prefix, "://") {
		prefix, address = model.DefaultDomain, mirror
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, false, errs.New(errs.Invalid, "registry mirror %q: want [PREFIX=]http[s]://HOST[:PORT][/PATH]", mirror)
	}
	return u, within(ref, prefix), nil
}

// within says whether the repository is the prefix or lies below it: "ghcr.io", "ghcr.io/team".
func within(ref model.Reference, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	name := ref.Name()
	return name == prefix || strings.HasPrefix(name, prefix+"/")
}

// insecure says whether TLS of the host need not be verified, and plain HTTP is fine. This machine always is.
func (s Settings) insecure(host string, path string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	addr, aerr := netip.ParseAddr(strings.Trim(name, "[]"))
	if name == "localhost" || aerr == nil && addr.IsLoopback() {
		return true
	}
	for _, entry := range s.Insecure {
		entry = strings.TrimPrefix(strings.TrimPrefix(entry, "http://"), "https://")
		if network, err := netip.ParsePrefix(entry); err == nil {
			if aerr == nil && network.Contains(addr) {
				return true
			}
			continue
		}
		if entry == host || entry == name || within(model.Reference{Domain: host, Path: path}, entry) {
			return true
		}
	}
	return false
}

// client makes the HTTP client for a host, and says which scheme to begin with.
func (o *operation) client(host, scheme, path string) (*http.Client, string, error) {
	config, err := o.tls(host)
	if err != nil {
		return nil, "", err
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: o.settings.Stall,
		ExpectContinueTimeout: 5 * time.Second,
		MaxIdleConnsPerHost:   10,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true, // layers are packed already, and ranges must count their bytes
	}
	o.mu.Lock()
	o.transports = append(o.transports, t)
	o.mu.Unlock()
	if !o.settings.insecure(host, path) {
		return &http.Client{Transport: asking{RoundTripper: t, o: o}, CheckRedirect: redirect}, scheme, nil
	}
	config.InsecureSkipVerify = true //nolint:gosec // the administrator said so
	if scheme == "http" {
		return &http.Client{Transport: asking{RoundTripper: t, o: o}, CheckRedirect: redirect}, scheme, nil
	}
	return &http.Client{Transport: asking{RoundTripper: docker.NewHTTPFallback(t), o: o}, CheckRedirect: redirect}, scheme, nil
}

// redirect follows a registry to where it keeps its blobs, without the credentials: another port, too, is somebody else.
func redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errs.New(errs.Unavailable, "stopped after 10 redirects")
	}
	if first := via[0].URL; req.URL.Host != first.Host || first.Scheme == "https" && req.URL.Scheme != "https" {
		req.Header.Del("Authorization")
	}
	return nil
}

// tls reads the host's own certificates, laid out as Docker does: HOST[:PORT]/*.crt are authorities to trust besides
// the system's, NAME.cert and NAME.key identify this client.
func (o *operation) tls(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, dir := range o.settings.CertsDirs {
		dir = filepath.Join(dir, host)
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, errs.Wrap(err, "certificates for registry %s", host)
		}
		for _, e := range entries {
			if err := addCertificate(config, filepath.Join(dir, e.Name())); err != nil {
				return nil, errs.Wrap(err, "certificates for registry %s", host)
			}
		}
	}
	return config, nil
}

func addCertificate(config *tls.Config, path string) error {
	switch filepath.Ext(path) {
	case ".crt":
		pem, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if config.RootCAs == nil {
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				return err
			}
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return errs.New(errs.Invalid, "%s holds no certificate in PEM form", path)
		}
	case ".cert":
		key := strings.TrimSuffix(path, ".cert") + ".key"
		pair, err := tls.LoadX509KeyPair(path, key)
		if err != nil {
			return errs.New(errs.Invalid, "%s and %s: %w", path, key, err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return nil
}

// Hosts is where a build finds the repositories of a registry: its mirrors, and itself. Credentials are the build client's,
// and whoever asks adds them.
func (c *Client) Hosts(domain string) ([]docker.RegistryHost, error) {
	return c.begin(model.Reference{Domain: domain}, nil, nil).hosts()
}
