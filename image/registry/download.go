package registry

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Download gives what an address offers (http or https; without a scheme http, as in Docker's import), with the proxies,
// certificates and patience that registries get. Size is -1 when the server does not say. A body that ends too soon or
// stalls gives an error. Close it.
func (c *Client) Download(ctx context.Context, address string) (_ io.ReadCloser, size int64, err error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, 0, errs.New(errs.Invalid, "%q is no address to fetch from: want http://HOST/PATH or https://HOST/PATH", address)
	}
	o := c.begin(model.Reference{Domain: u.Host}, nil, nil)
	client, _, err := o.client(u.Host, u.Scheme, "")
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err == nil {
		req.Header.Set("User-Agent", userAgent())
		var res *http.Response
		if res, err = client.Do(req); err == nil && res.StatusCode != http.StatusOK {
			res.Body.Close()
			err = errs.New(errs.Unavailable, "the server answered %s", res.Status)
		}
		if err == nil {
			return &download{&bounded{ReadCloser: res.Body, ctx: ctx, cancel: cancel, o: o, left: math.MaxInt64}, o}, res.ContentLength, nil
		}
	}
	cancel(nil)
	o.end()
	return nil, 0, errs.Wrap(err, "download %s", u.Redacted())
}

// download closes its connection at the end.
type download struct {
	*bounded
	o *operation
}

func (d *download) Close() error {
	defer d.o.end()
	return d.bounded.Close()
}
