package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/shoalhq/shoal/lib/errs"
)

// maxAnswer bounds documents: manifests, lists of tags, tokens, errors. What reads them may not.
const maxAnswer = 16 << 20

// asking stands between an operation and a host. It keeps answers that are documents from being endless or never coming to
// an end, and does what containerd's client does not.
type asking struct {
	http.RoundTripper
	o      *operation
	tokens bool // for token servers
}

// tokenClient is the client for the token servers that a host names.
func tokenClient(c *http.Client) *http.Client {
	own := *c
	a := c.Transport.(asking)
	a.tokens = true
	own.Transport = a
	return &own
}

// expect is the context's key for what an operation expects: a document, or a blob, whose reader watches over it.
type expect struct{}

const (
	expectDocument = 1
	expectBlob     = 2
)

// manifestDigest is the context's key for the digest of a manifest that is pushed.
type manifestDigest struct{}

func (a asking) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.tokens && a.o.auth != nil && req.URL.Scheme != "https" && a.o.overTLS.Load() {
		return nil, errs.New(errs.Forbidden, "the registry %s is reached by TLS, but wants the credentials sent to %s without: they were not sent", a.o.ref.Domain, req.URL.Redacted())
	}
	ctx := req.Context()
	if d, _ := ctx.Value(manifestDigest{}).(digest.Digest); !a.tokens {
		req = withDigest(req, d)
	}
	if what, _ := ctx.Value(expect{}).(int); !a.tokens && what != expectDocument || req.Method == http.MethodHead {
		res, err := a.RoundTripper.RoundTrip(req)
		a.note(res)
		return res, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	res, err := a.RoundTripper.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	a.note(res)
	res.Body = &bounded{ReadCloser: res.Body, ctx: ctx, cancel: cancel, o: a.o, left: maxAnswer}
	return res, nil
}

// note remembers that the registry itself was reached by TLS, and tells what a registry that limits says of its limit.
func (a asking) note(res *http.Response) {
	if res != nil && res.StatusCode == http.StatusTooManyRequests {
		var said []string
		for _, name := range []string{"Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} {
			if v := res.Header.Get(name); v != "" && len(v) < 100 {
				said = append(said, name+": "+v)
			}
		}
		if said != nil {
			a.o.sayOnce("The registry " + a.o.ref.Domain + " says of its limit: " + strings.Join(said, ", "))
		}
	}
	if !a.tokens && res != nil && res.TLS != nil {
		a.o.overTLS.Store(true)
	}
}

// withDigest tells the registry by which digest a manifest that is pushed with a tag is to be known, when that is not of the
// usual algorithm (distribution specification, "Pushing Manifests").
func withDigest(req *http.Request, d digest.Digest) *http.Request {
	if d == "" || d.Algorithm() == digest.Canonical || req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/manifests/") {
		return req
	}
	req = req.Clone(req.Context()) // a RoundTripper must not change the request
	q := req.URL.Query()
	q.Set("digest", d.String())
	req.URL.RawQuery = q.Encode()
	return req
}

// bounded is the body of a document.
type bounded struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	o      *operation
	left   int64
}

func (b *bounded) Read(p []byte) (int, error) {
	stop := b.o.cfg.Clock.AfterFunc(b.o.settings.Stall, func() { b.cancel(errStalled) })
	n, err := b.ReadCloser.Read(p)
	stop()
	if b.left -= int64(n); b.left < 0 {
		return n, errs.New(errs.Invalid, "the answer is a document of more than %d MB, which makes no sense", maxAnswer>>20)
	}
	if err != nil && errors.Is(context.Cause(b.ctx), errStalled) {
		err = fmt.Errorf("%w: nothing came for %v in the middle of a document", errStalled, b.o.settings.Stall)
	}
	return n, err
}

func (b *bounded) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
