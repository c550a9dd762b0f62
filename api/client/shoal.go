package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"

	"github.com/shoalhq/shoal/lib/errs"
)

// Call uses one of Shoal's own additions to the API: path starts with /shoal/; in, when not nil, is sent and out, when not
// nil, filled with the answer.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://shoal"+path, body)
	if err != nil {
		return err
	}
	dial := c.Dialer()
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		var e struct{ Message string }
		if json.Unmarshal(data, &e) != nil || resp.StatusCode == http.StatusNotFound && resp.Header.Get("Server") != "" && !isShoal(resp.Header.Get("Server")) {
			return errs.New(errs.Unsupported, "the engine at %s does not know %s %s: it is no Shoal, or an older one", c.endpoint.Host, method, path)
		}
		return errs.New(kindOf(resp.StatusCode), "Error response from daemon: %s", e.Message)
	}
	if out == nil {
		return nil
	}
	return errs.Wrap(json.Unmarshal(data, out), "answer of %s %s", method, path)
}

func kindOf(status int) errs.Kind {
	switch status {
	case http.StatusBadRequest:
		return errs.Invalid
	case http.StatusNotFound:
		return errs.NotFound
	case http.StatusConflict:
		return errs.Conflict
	case http.StatusForbidden:
		return errs.Forbidden
	case http.StatusNotImplemented:
		return errs.Unsupported
	}
	return errs.Internal
}

func isShoal(server string) bool { return len(server) >= 6 && server[:6] == "Shoal/" }
