// Package plugin speaks Docker's plug-in protocol: it finds plug-ins by their files, shakes hands with them
// (/Plugin.Activate) and calls them (a POST of JSON, answered by JSON), each with a limit of time. It knows no kind of
// plug-in; volume, network, IPAM and authorization drivers are made on top of it by their rooms. It starts nothing, keeps
// no connection and has no goroutine of its own.
//
// The protocol: https://docs.docker.com/engine/extend/plugin_api/
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// Kinds of plug-ins, as they name them when they are activated.
const (
	VolumeDriver  = "VolumeDriver"
	NetworkDriver = "NetworkDriver"
	IPAMDriver    = "IpamDriver"
	Authorization = "authz"
)

const (
	mimeType  = "application/vnd.docker.plugins.v1.2+json"
	maxAnswer = 16 << 20
)

// Config says where plug-ins are and how long they may take. Zero fields are Docker's directories and our limits.
type Config struct {
	// Dirs have files named after plug-ins, or directories with such: NAME.sock is its socket, NAME.spec holds its
	// address, NAME.json its address and what TLS needs.
	Dirs     []string
	Activate time.Duration // for the handshake; 5 s
	Call     time.Duration // for a call whose context has no earlier end; 30 s
}

// Plugins are the plug-ins of a host. Life: New → Get and calls, from any number of goroutines. There is nothing to close.
type Plugins struct {
	cfg Config

	mu     sync.Mutex
	active map[string]*Plugin
}

// New looks at nothing yet.
func New(cfg Config) *Plugins {
	if len(cfg.Dirs) == 0 {
		cfg.Dirs = []string{"/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"}
	}
	if cfg.Activate == 0 {
		cfg.Activate = 5 * time.Second
	}
	if cfg.Call == 0 {
		cfg.Call = 30 * time.Second
	}
	return &Plugins{cfg: cfg, active: map[string]*Plugin{}}
}

// Plugin is one that has answered the handshake.
type Plugin struct {
	Name       string
	Implements []string

	of   *Plugins
	at   address
	http *http.Client
}

// Get finds a plug-in by name and shakes hands with it, unless that was done before, and makes sure that it is of the
// kind. One that is not there is errs.NotFound, one that does not answer errs.Unavailable; neither is waited for or
// remembered, so a plug-in that is started later is found by the next Get.
func (p *Plugins) Get(ctx context.Context, name, kind string) (*Plugin, error) {
	at, err := p.find(name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	pl := p.active[name]
	p.mu.Unlock()
	if pl == nil || pl.at.text != at.text {
		if pl, err = p.activate(ctx, name, at); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(pl.Implements, kind) {
		return nil, errs.New(errs.Invalid, "plug-in %s is no %s; it says it implements %s", name, kind, strings.Join(pl.Implements, ", "))
	}
	return pl, nil
}

func (p *Plugins) activate(ctx context.Context, name string, at address) (*Plugin, error) {
	// Connections are not kept: one to a plug-in that was restarted would fail the first call, which cannot be repeated.
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, at.network, at.addr)
	}
	pl := &Plugin{Name: name, of: p, at: at, http: &http.Client{
		Transport: &http.Transport{DialContext: dial, TLSClientConfig: at.tls, DisableKeepAlives: true, DisableCompression: true},
		// A plug-in has no reason to send the daemon elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	var answer struct{ Implements []string }
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Activate)
	defer cancel()
	if err := pl.Call(ctx, "Plugin.Activate", nil, &answer); err != nil {
		return nil, err
	}
	pl.Implements = answer.Implements
	p.mu.Lock()
	p.active[name] = pl
	p.mu.Unlock()
	return pl, nil
}

// Refusal is what a plug-in answered instead of doing what it was asked.
type Refusal struct {
	Plugin, Method string
	Status         int    // of HTTP; 200 when only the answer's text says it
	Message        string // the plug-in's
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("plug-in %s: %s: %s", r.Plugin, r.Method, r.Message)
}

// Unimplemented says that the plug-in does not know the method. Some methods are optional.
func Unimplemented(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}

// Call asks the plug-in to do method ("VolumeDriver.Create") with in as JSON; the answer goes into out, which may be nil.
// An answer that has a text in the field Err or Error is a *Refusal. There are no repeats.
func (pl *Plugin) Call(ctx context.Context, method string, in, out any) error {
	limit, cancel := context.WithTimeout(ctx, pl.of.cfg.Call)
	defer cancel()
	began := time.Now()
	status, answer, err := pl.post(limit, method, in)
	switch {
	case err == nil:
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return errs.New(errs.Canceled, "plug-in %s: %s: %w", pl.Name, method, ctx.Err())
	case limit.Err() != nil:
		pl.forget()
		return errs.New(errs.Unavailable, "plug-in %s (%s) has not answered %s within %s; see whether it hangs, and start it again", pl.Name, pl.at.text, method, time.Since(began).Round(time.Millisecond))
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		pl.forget()
		return errs.New(errs.Unavailable, "plug-in %s does not run: nobody listens at %s; start it", pl.Name, pl.at.text)
	default:
		pl.forget()
		return errs.New(errs.Unavailable, "plug-in %s (%s): %s: %w", pl.Name, pl.at.text, method, err)
	}
	var trouble struct{ Err, Error string }
	jerr := json.Unmarshal(answer, &trouble)
	message := trouble.Err + trouble.Error
	if status != http.StatusOK && message == "" {
		message = fmt.Sprintf("HTTP status %d: %s", status, bytes.TrimSpace(answer))
	}
	if message != "" {
		return &Refusal{Plugin: pl.Name, Method: method, Status: status, Message: message}
	}
	if out == nil {
		return nil
	}
	if jerr == nil {
		jerr = json.Unmarshal(answer, out)
	}
	if jerr != nil {
		return errs.New(errs.Unavailable, "plug-in %s: %s: the answer is not the JSON of Docker's plug-in protocol: %w", pl.Name, method, jerr)
	}
	return nil
}

func (pl *Plugin) post(ctx context.Context, method string, in any) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(b)
	}
	scheme := "http"
	if pl.at.tls != nil {
		scheme = "https"
	}
	host := "plugin"
	if pl.at.network != "unix" {
		host = pl.at.addr
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+host+"/"+method, body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", mimeType)
	resp, err := pl.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)
	}
	return resp.StatusCode, answer, err
}

// forget makes the next Get shake hands again: a plug-in that failed may be another one when it is back.
func (pl *Plugin) forget() {
	pl.of.mu.Lock()
	defer pl.of.mu.Unlock()
	if pl.of.active[pl.Name] == pl {
		delete(pl.of.active, pl.Name)
	}
}
