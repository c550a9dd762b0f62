package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	moby "github.com/moby/moby/client"

	"github.com/shoalhq/shoal/lib/errs"
)

// DefaultHost is where shoald listens unless told otherwise.
const DefaultHost = "unix:///run/shoal/shoal.sock"

// Options choose the server. The zero value is what a user gets who says nothing.
type Options struct {
	Host       string            // overrides everything else
	Context    string            // name of a context; "default" ignores contexts
	ConfigDir  string            // "" is DOCKER_CONFIG or ~/.docker
	TLS        TLSOptions        // for tcp hosts not taken from a context
	APIVersion string            // "" negotiates
	UserAgent  string            // "" is Shoal-Client
	Headers    map[string]string // added to each request, on top of the configuration file's HttpHeaders
	Getenv     func(string) string
}

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	*moby.Client
	endpoint Endpoint
	asks     bool          // for the server's API version
	greeted  chan struct{} // nil before Greet
}

// New resolves the host and makes a client for it; nothing is sent yet.
func New(ctx context.Context, o Options) (*Client, error) {
	ep, err := Resolve(o)
	if err != nil {
		return nil, err
	}
	opts := []moby.Opt{moby.WithUserAgent(orDefault(o.UserAgent, "Shoal-Client"))}
	transport := &http.Transport{MaxIdleConns: 6, IdleConnTimeout: 30 * time.Second, DisableCompression: true}
	host := ep.Host
	switch {
	case strings.HasPrefix(host, "ssh://"):
		dial, err := sshDialer(host)
		if err != nil {
			return nil, err
		}
		transport.DialContext = dial
		opts = append(opts, moby.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: moby.CheckRedirect}),
			moby.WithHost("http://docker.example.com"), moby.WithDialContext(dial))
	default:
		transport.DialContext = (&net.Dialer{KeepAlive: 30 * time.Second, Timeout: 30 * time.Second}).DialContext
		if ep.TLS != nil {
			transport.TLSClientConfig = ep.TLS
		}
		opts = append(opts, moby.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: moby.CheckRedirect}),
			moby.WithHost(host))
	}
	if len(ep.headers) > 0 || len(o.Headers) > 0 {
		all := map[string]string{}
		for _, m := range []map[string]string{ep.headers, o.Headers} {
			for k, v := range m {
				all[http.CanonicalHeaderKey(k)] = v
			}
		}
		opts = append(opts, moby.WithHTTPHeaders(all))
	}
	if o.APIVersion != "" {
		opts = append(opts, moby.WithAPIVersion(o.APIVersion))
	} else if v := o.getenv("DOCKER_API_VERSION"); v != "" {
		opts = append(opts, moby.WithAPIVersion(v))
	}
	c, err := moby.New(opts...)
	if err != nil {
		return nil, errs.New(errs.Invalid, "host %q (from %s): %w", ep.Host, ep.Source, err)
	}
	return &Client{Client: c, endpoint: ep, asks: o.APIVersion == "" && o.getenv("DOCKER_API_VERSION") == ""}, nil
}

// Greet begins to ask the server for its API version, as the first request otherwise does. It is for a command that has
// something else to do first. Nothing may be asked of the client before Greeted.
func (c *Client) Greet() {
	if !c.asks || c.greeted != nil {
		return
	}
	c.greeted = make(chan struct{})
	go func() {
		defer close(c.greeted)
		c.Ping(context.Background(), moby.PingOptions{NegotiateAPIVersion: true}) // the first request finds out what is wrong
	}()
}

// Greeted waits for the end of what Greet began.
func (c *Client) Greeted() {
	if c.greeted != nil {
		<-c.greeted
	}
}

// Endpoint tells which server was chosen and by what.
func (c *Client) Endpoint() Endpoint { return c.endpoint }

// IsConnection says whether err means that no server was reached, as opposed to a server's answer.
func IsConnection(err error) bool {
	var op *net.OpError
	return err != nil && (moby.IsErrConnectionFailed(err) || errors.As(err, &op) && op.Op == "dial" || strings.Contains(err.Error(), wantsTLS))
}

// wantsTLS is what Go's servers answer to who speaks without TLS.
const wantsTLS = "Client sent an HTTP request to an HTTPS server"

// Explain makes of an error of a request one sentence that says what was tried and what to do. Other errors than
// connection failures come back with the moby client's prefix taken off.
func (c *Client) Explain(err error) error {
	if err == nil || !IsConnection(err) {
		return err
	}
	ep := c.endpoint
	if strings.Contains(err.Error(), wantsTLS) {
		return errs.New(errs.Unavailable, "the engine at %s (chosen by %s) wants TLS: use --tlsverify with --tlscacert, --tlscert and --tlskey, or DOCKER_TLS_VERIFY=1 with DOCKER_CERT_PATH", ep.Host, ep.Source)
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return errs.New(errs.Unavailable, "the engine at %s ended the connection in the middle of the request: %w; its log may say why; containers are not touched by that", ep.Host, err)
	}
	path, unix := strings.CutPrefix(ep.Host, "unix://")
	switch {
	case unix && (errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "permission denied")):
		return errs.New(errs.Forbidden, "no permission to use the engine at %s (chosen by %s): run as root, or as a member of the socket's group%s",
			ep.Host, ep.Source, groupHint(path))
	case unix:
		if _, statErr := os.Stat(path); errors.Is(statErr, os.ErrNotExist) {
			return errs.New(errs.Unavailable, "cannot reach the engine: there is no socket %s (chosen by %s); start the daemon with \"shoald\" or \"systemctl start shoald\", or name another host with --host or DOCKER_HOST", path, ep.Source)
		}
		return errs.New(errs.Unavailable, "cannot reach the engine: nobody answers on %s (chosen by %s); the daemon is not running: start it with \"shoald\" or \"systemctl start shoald\"", path, ep.Source)
	}
	if text := explainTLS(err, ep.TLS != nil); text != "" {
		return errs.New(errs.Unavailable, "cannot reach the engine at %s (chosen by %s): %s", ep.Host, ep.Source, text)
	}
	return errs.New(errs.Unavailable, "cannot reach the engine at %s (chosen by %s): %w; check that the daemon there runs, the address is right, and TLS is set as the server has it", ep.Host, ep.Source, err)
}

func groupHint(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf(" (group id %d)", st.Gid)
	}
	return ""
}

func (o Options) getenv(name string) string {
	if o.Getenv != nil {
		return o.Getenv(name)
	}
	return os.Getenv(name)
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// Endpoint is a server and how it was chosen.
type Endpoint struct {
	Host    string // unix://, tcp://, http://, https://, ssh://
	Source  string // what named it: "--host", "DOCKER_HOST", "context \"x\"", "the default"
	Context string // name of the context, "default" when none
	TLS     *tls.Config
	Files   TLSOptions // what TLS was made of, when not of a context
	headers map[string]string
}
