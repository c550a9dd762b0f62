package node

import (
	"context"
	"encoding/pem"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalhq/shoal/api/access"
	"github.com/shoalhq/shoal/api/server"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/observe/audit"
	"github.com/shoalhq/shoal/observe/health"
)

// openFront makes the API with everything that stands before it.
func (n *Node) openFront(cfg *config.Config, plugins *plugin.Plugins) (err error) {
	g := cfg.API.Guard
	if g.AuditLog != "" {
		n.front.audit, err = audit.Open(g.AuditLog, g.AuditSize, g.AuditFiles, func(err error) { health.Log(n.log, "audit-failed", "requests go unrecorded", "reason", err) })
		if err != nil {
			return err
		}
		n.front.guard.Audit, n.front.guard.AuditLooks = n.front.audit.Add, g.AuditLooks
	}
	n.front.guard.Authorizer = func() server.Authorizer {
		if names := n.cfg.Load().API.Guard.AuthzPlugins; len(names) > 0 {
			return authorizer{plugins, names}
		}
		return nil
	}
	n.front.backends = n.backends()
	if g.SocketMounts != config.AllowMounts {
		c := mountGuard{Containers: n.front.backends.Containers, policy: g.SocketMounts, secrets: n.secrets(), except: n.socketDir(), volume: n.volumes.Inspect}
		n.front.backends.Containers = c
		if g.SocketMounts == config.ForbidMounts {
			n.front.backends.Life = lifeGuard{n.front.backends.Life, c}
		}
	}
	n.front.api = n.newServer(n.front.backends, n.front.guard)
	for pattern, h := range n.routes() {
		n.front.api.Handle(pattern, h)
	}
	n.front.sockets = openSockets(n)
	return nil
}

// serveAudit answers GET /shoal/audit?tail=N&since=TIME with a list of audit.Record, oldest first.
func (n *Node) serveAudit(w http.ResponseWriter, r *http.Request) error {
	if n.front.audit == nil {
		return errs.New(errs.Unsupported, "no audit log is kept; start the daemon with --audit-log=FILE")
	}
	tail, since := 100, time.Time{}
	if v := r.URL.Query().Get("tail"); v != "" {
		var err error
		if tail, err = strconv.Atoi(v); err != nil || tail < 0 {
			return errs.New(errs.Invalid, "tail=%q is not a number of records", v)
		}
	}
	if v := r.URL.Query().Get("since"); v != "" {
		var err error
		if since, err = time.Parse(time.RFC3339Nano, v); err != nil {
			return errs.New(errs.Invalid, "since=%q is not a time such as 2026-01-31T12:00:00Z", v)
		}
	}
	list, err := n.front.audit.Tail(min(tail, 100_000), since)
	if err != nil {
		return err
	}
	if list == nil {
		list = []audit.Record{}
	}
	return answer(w, list)
}

// authorizer asks plug-ins by Docker's protocol: https://docs.docker.com/engine/extend/plugins_authorization/. All must
// allow; one that cannot be asked refuses.
type authorizer struct {
	plugins *plugin.Plugins
	names   []string
}

const authzLimit = 10 * time.Second

// authzMessage is what is asked.
type authzMessage struct {
	User                    string            `json:",omitempty"`
	UserAuthNMethod         string            `json:",omitempty"`
	RequestMethod           string            `json:",omitempty"`
	RequestURI              string            `json:"RequestUri,omitempty"`
	RequestBody             []byte            `json:",omitempty"`
	RequestHeaders          map[string]string `json:",omitempty"`
	RequestPeerCertificates [][]byte          `json:",omitempty"` // PEM
	ResponseBody            []byte            `json:",omitempty"`
	ResponseHeaders         map[string]string `json:",omitempty"`
	ResponseStatusCode      int               `json:",omitempty"`
}

func (a authorizer) Request(ctx context.Context, q *server.AuthRequest) error {
	m := question(q)
	for _, name := range a.names {
		if err := a.ask(ctx, name, "AuthZPlugin.AuthZReq", m); err != nil {
			return err
		}
	}
	return nil
}

func (a authorizer) Response(ctx context.Context, q *server.AuthRequest, s *server.AuthAnswer) error {
	m := question(q)
	m.ResponseStatusCode, m.ResponseHeaders, m.ResponseBody = s.Status, flatten(s.Header), s.Body
	for _, name := range slices.Backward(a.names) {
		if err := a.ask(ctx, name, "AuthZPlugin.AuthZRes", m); err != nil {
			return err
		}
	}
	return nil
}

func question(q *server.AuthRequest) authzMessage {
	m := authzMessage{RequestMethod: q.Method, RequestURI: q.URI, RequestBody: q.Body, RequestHeaders: flatten(q.Header), User: q.Who.CN}
	if m.User != "" {
		m.UserAuthNMethod = "TLS"
	}
	for _, der := range q.Certs {
		m.RequestPeerCertificates = append(m.RequestPeerCertificates, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return m
}

// flatten leaves out what is a password.
func flatten(h http.Header) map[string]string {
	out := map[string]string{}
	for k, v := range h {
		if k = http.CanonicalHeaderKey(k); k != "X-Registry-Auth" && k != "X-Registry-Config" {
			out[k] = strings.Join(v, ", ")
		}
	}
	return out
}

func (a authorizer) ask(ctx context.Context, name, method string, m authzMessage) error {
	ctx, cancel := context.WithTimeout(ctx, authzLimit)
	defer cancel()
	var out struct {
		Allow bool
		Msg   string
	}
	p, err := a.plugins.Get(ctx, name, plugin.Authorization)
	if err == nil {
		err = p.Call(ctx, method, m, &out)
	}
	switch {
	case err != nil:
		return errs.New(errs.Internal, "plugin %s failed with error: %w; nothing is permitted until it works", name, err)
	case !out.Allow:
		return errs.New(errs.Forbidden, "authorization denied by plugin %s: %s", name, out.Msg)
	}
	return nil
}

// secrets are the paths of the host with which a container would be master of the engine.
func (n *Node) secrets() (out []access.Secret) {
	cfg := n.cfg.Load()
	for _, h := range cfg.API.Hosts {
		if p, ok := strings.CutPrefix(h, "unix://"); ok {
			out = append(out, access.Secret{Path: resolved(p), What: "the engine's socket"})
		}
	}
	if cfg.API.Key != "" {
		out = append(out, access.Secret{Path: resolved(cfg.API.Key), What: "the engine's TLS key"})
	}
	return append(out, access.Secret{Path: resolved(cfg.Daemon.ExecRoot), What: "the engine's runtime directory", Tree: true})
}

// resolved follows the symbolic links of a path, as far as it exists.
func resolved(p string) string {
	p = filepath.Clean(p)
	if r, err := filepath.EvalSymlinks(p); err == nil {
		return r
	}
	dir, name := filepath.Split(p)
	if dir = filepath.Clean(dir); dir == p {
		return p
	}
	return filepath.Join(resolved(dir), name)
}

// mountGuard looks at the mounts of containers that are created. It keeps people from giving the engine away by mistake;
// whoever may use the full API without restriction finds other ways.
type mountGuard struct {
	server.Containers
	policy  string
	secrets []access.Secret
	except  string // the directory of scoped sockets
	volume  func(context.Context, string) (model.Volume, error)
}

func (g mountGuard) Create(ctx context.Context, r model.CreateRequest) (model.CreateResult, error) {
	said := g.look(ctx, &r.Spec.Storage)
	if len(said) > 0 && g.policy == config.ForbidMounts {
		return model.CreateResult{}, forbidden(said)
	}
	res, err := g.Containers.Create(ctx, r)
	res.Warnings = append(res.Warnings, said...)
	return res, err
}

func forbidden(said []string) error {
	return errs.New(errs.Forbidden, "%s; this daemon forbids that (--engine-mounts=forbid)", strings.Join(said, "; "))
}

// look says what the mounts would show of the engine.
func (g mountGuard) look(ctx context.Context, s *model.StorageSpec) (said []string) {
	var sources []string
	for _, b := range s.Binds {
		sources = append(sources, access.BindSource(b))
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" || m.Type == "volume" {
			sources = append(sources, m.Source)
		}
		if m.Volume != nil && m.Volume.DriverOptions["device"] != "" {
			sources = append(sources, m.Volume.DriverOptions["device"])
		}
	}
	for _, source := range sources {
		path := source
		if source != "" && !filepath.IsAbs(source) {
			v, err := g.volume(ctx, source)
			if err != nil {
				continue // made with the container, on a directory of its own
			}
			path = v.Options["device"]
		}
		if !filepath.IsAbs(path) {
			continue
		}
		for _, what := range access.Exposed(resolved(path), g.secrets, g.except) {
			said = append(said, "the mount of "+source+" gives the container "+what+", with which it is root on this machine, read-only or not: "+
				"give it a scoped socket instead (shoal socket create)")
		}
	}
	return said
}

// lifeGuard looks again when a container starts: what its mounts lead to may have changed.
type lifeGuard struct {
	server.Life
	g mountGuard
}

func (l lifeGuard) check(ctx context.Context, ref string) error {
	v, err := l.g.Inspect(ctx, ref, false)
	if err != nil {
		return nil // the engine says what is wrong with the name
	}
	if said := l.g.look(ctx, &v.Spec.Storage); len(said) > 0 {
		return forbidden(said)
	}
	return nil
}

func (l lifeGuard) Start(ctx context.Context, ref string) error {
	if err := l.check(ctx, ref); err != nil {
		return err
	}
	return l.Life.Start(ctx, ref)
}

func (l lifeGuard) Restart(ctx context.Context, ref string, o model.StopOptions) error {
	if err := l.check(ctx, ref); err != nil {
		return err
	}
	return l.Life.Restart(ctx, ref, o)
}
