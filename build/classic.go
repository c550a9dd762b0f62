package build

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/entitlements"
	"golang.org/x/sync/errgroup"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Build runs a build as the classic endpoint asks for it. What it has to say goes to emit, in BuildKit's messages for a
// client with a session and in the classic builder's words for others; calls do not overlap. It returns the image's ID, empty
// when the output was no image.
func (b *Builder) Build(ctx context.Context, r model.BuildRequest, archive io.Reader, emit func(model.BuildMessage) error) (string, error) {
	if err := checkRequest(r); err != nil {
		return "", err
	}
	eng, err := b.engine(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ended, cancel)()
	leave, err := b.enter(r.ID, cancel)
	if err != nil {
		return "", err
	}
	defer leave()
	if r.Options.ExtraHosts, err = extraHosts(r.Options.ExtraHosts, b.cfg.Networks.HostGateway(ctx)); err != nil {
		return "", err
	}
	req, err := solveRequest(r)
	if err != nil {
		return "", err
	}
	var to watcher = traceWatcher{emit}
	if r.Session == "" {
		close, err := eng.serveContext(ctx, r, archive, req)
		if err != nil {
			return "", err
		}
		defer close()
		to = newClassicWatcher(emit)
	}
	resp, err := eng.solve(ctx, req, to)
	if err != nil {
		return "", explain(err)
	}
	id := resp[exptypes.ExporterImageConfigDigestKey]
	if id == "" {
		return "", nil
	}
	if err := emit(model.BuildMessage{ID: id}); err != nil {
		return id, err
	}
	return id, to.built(id, r.Source.Tags)
}

// watcher is told of what happens in a build.
type watcher interface {
	status(*controlapi.StatusResponse) error
	built(id string, tags []string) error
}

// solve runs the request and follows it to its end.
func (e *engine) solve(ctx context.Context, req *controlapi.SolveRequest, to watcher) (map[string]string, error) {
	group, gctx := errgroup.WithContext(ctx)
	var resp *controlapi.SolveResponse
	group.Go(func() (err error) {
		resp, err = e.control.Solve(gctx, req)
		e.refused.solved(req.Ref, err)
		return err
	})
	group.Go(func() error {
		err := e.refused.status(statusStream{stream{gctx}, to.status}, req.Ref, func(s controlapi.Control_StatusServer) error {
			return e.control.Status(&controlapi.StatusRequest{Ref: req.Ref}, s)
		})
		if gctx.Err() != nil {
			return nil // Solve says why
		}
		return err
	})
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, errs.New(errs.Canceled, "the build was cancelled")
		}
		return nil, err
	}
	return resp.ExporterResponse, nil
}

func checkRequest(r model.BuildRequest) error {
	switch r.Options.Network {
	case "", "default", "bridge", "none", "host":
	default:
		return errs.New(errs.Unsupported, "network mode %q not supported by buildkit: steps of a build use default, none or host", r.Options.Network)
	}
	for p := range strings.SplitSeq(r.Source.Platform, ",") {
		if p == "" {
			continue
		}
		if _, err := platforms.Parse(p); err != nil {
			return errs.New(errs.Invalid, "build: platform %w; want OS/ARCHITECTURE[/VARIANT], as linux/arm64", err) // its error names the platform
		}
	}
	if len(r.Outputs) > 1 {
		return errs.New(errs.Invalid, "%d outputs are given; this endpoint takes one", len(r.Outputs))
	}
	return nil
}

// solveRequest says the same in BuildKit's words.
func solveRequest(r model.BuildRequest) (*controlapi.SolveRequest, error) {
	names, err := fullNames(strings.Join(r.Source.Tags, ","))
	if err != nil {
		return nil, err
	}
	req := &controlapi.SolveRequest{Ref: r.ID, Session: r.Session, Frontend: "dockerfile.v0", FrontendAttrs: frontendAttrs(r), Cache: &controlapi.CacheOptions{}}
	if req.Ref == "" {
		req.Ref = identity.NewID()
	}
	for _, ref := range r.Options.CacheFrom {
		attrs := map[string]string{"ref": ref}
		req.Cache.Imports = append(req.Cache.Imports, &controlapi.CacheOptionsEntry{Type: "registry", Attrs: attrs})
	}
	if r.Options.Network == "host" {
		req.Entitlements = append(req.Entitlements, string(entitlements.EntitlementNetworkHost))
	}
	out := model.BuildOutput{Type: client.ExporterImage}
	if len(r.Outputs) == 1 {
		out = r.Outputs[0]
		if out.Type == "" || out.Type == "moby" {
			out.Type = client.ExporterImage
		}
	}
	attrs := map[string]string{}
	for k, v := range out.Attrs {
		attrs[k] = v
	}
	if out.Type == client.ExporterImage && names != "" {
		attrs["name"] = names
	}
	if r.Source.Squash {
		attrs[optSquash] = "true"
	}
	req.Exporters = []*controlapi.Exporter{{Type: out.Type, Attrs: attrs}}
	return req, nil
}

// frontendAttrs are the Dockerfile front end's options.
func frontendAttrs(r model.BuildRequest) map[string]string {
	a := map[string]string{"image-resolve-mode": "local"}
	set := func(key, value string) {
		if value != "" {
			a[key] = value
		}
	}
	number := func(key string, n int64) {
		if n != 0 {
			a[key] = strconv.FormatInt(n, 10)
		}
	}
	set("filename", r.Source.Dockerfile)
	set("target", r.Source.Target)
	set("platform", r.Source.Platform)
	for k, v := range r.Source.Labels {
		a["label:"+k] = v
	}
	for k, v := range r.Source.Args {
		if v != nil {
			a["build-arg:"+k] = *v
		}
	}
	if r.Options.NoCache {
		a["no-cache"] = ""
	}
	if r.Options.Pull {
		a["image-resolve-mode"] = "pull"
	}
	if n := r.Options.Network; n == "host" || n == "none" {
		a["force-network-mode"] = n
	}
	set("add-hosts", strings.Join(r.Options.ExtraHosts, ","))
	l := r.Limits
	set("cgroup-parent", l.CgroupParent)
	number("shm-size", l.ShmSize)
	number("memory", l.Memory)
	number("memswap", l.MemorySwap)
	number("cpushares", l.CPUShares)
	number("cpuquota", l.CPUQuota)
	number("cpuperiod", l.CPUPeriod)
	set("cpusetcpus", l.CpusetCPUs)
	set("cpusetmems", l.CpusetMems)
	var ulimits []string
	for _, u := range l.Ulimits {
		ulimits = append(ulimits, u.Name+"="+strconv.FormatInt(u.Soft, 10)+":"+strconv.FormatInt(u.Hard, 10))
	}
	set("ulimit", strings.Join(ulimits, ","))
	if strings.HasPrefix(r.Remote, "http://") || strings.HasPrefix(r.Remote, "https://") || strings.HasPrefix(r.Remote, "git") {
		a["context"] = r.Remote
	}
	return a
}

// extraHosts makes NAME:ADDRESS, as clients write it, the front end's NAME=ADDRESS.
func extraHosts(list []string, gateway string) ([]string, error) {
	var out []string
	for _, h := range list {
		i := strings.IndexAny(h, ":=")
		if i <= 0 {
			return nil, errs.New(errs.Invalid, "extra host %q: want NAME:ADDRESS", h)
		}
		name, addr := h[:i], strings.TrimSuffix(strings.TrimPrefix(h[i+1:], "["), "]")
		if addr == "host-gateway" {
			if addr = gateway; addr == "" {
				return nil, errs.New(errs.Invalid, "extra host %q: this daemon has no default network in which the host has an address; set host-gateway-ips or give the address", h)
			}
		}
		if _, err := netip.ParseAddr(addr); err != nil {
			return nil, errs.New(errs.Invalid, "extra host %q: %q is not an IP address", h, addr)
		}
		out = append(out, name+"="+addr)
	}
	return out, nil
}

// serveContext makes the session that a client without one would have: it offers the archive and the credentials.
func (e *engine) serveContext(ctx context.Context, r model.BuildRequest, archive io.Reader, req *controlapi.SolveRequest) (func(), error) {
	s, err := session.NewSession(ctx, "")
	if err != nil {
		return nil, err
	}
	if r.Remote == "" {
		if archive == nil {
			return nil, errs.New(errs.Invalid, "the request has neither a context (body) nor a remote context (remote=URL)")
		}
		files := uploadprovider.New()
		req.FrontendAttrs["context"] = files.Add(io.NopCloser(archive))
		s.Allow(files)
	}
	s.Allow(credentials(r.Auth))
	req.Session = s.ID()
	go s.Run(ctx, func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			defer cancel()
			e.sessions.HandleConn(ctx, sessionConn{theirs, cancel}, meta)
		}()
		return ours, nil
	})
	return func() { s.Close() }, nil
}

// enter notes a build under its ID, so that it can be cancelled.
func (b *Builder) enter(id string, cancel context.CancelFunc) (func(), error) {
	if id == "" {
		return func() {}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.builds[id] != nil {
		return nil, errs.New(errs.Conflict, "a build with the ID %q runs already", id)
	}
	b.builds[id] = cancel
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.builds, id)
	}, nil
}

// Cancel ends the build with the client's ID; that there is none is no error, as in Docker.
func (b *Builder) Cancel(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cancel := b.builds[id]; cancel != nil {
		cancel()
	}
	return nil
}

// traceWatcher passes BuildKit's messages on.
type traceWatcher struct {
	emit func(model.BuildMessage) error
}

func (t traceWatcher) status(s *controlapi.StatusResponse) error {
	data, err := s.MarshalVT()
	if err != nil {
		return err
	}
	return t.emit(model.BuildMessage{Trace: data})
}

func (traceWatcher) built(string, []string) error { return nil }
