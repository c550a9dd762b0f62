package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

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
	answer, err := c.Stream(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	data, err := io.ReadAll(io.LimitReader(answer, 64<<20))
	if err != nil || out == nil {
		return err
	}
	return errs.Wrap(json.Unmarshal(data, out), "answer of %s %s", method, path)
}

// Stream is Call for bodies and answers that are no JSON documents. The caller closes the answer.
func (c *Client) Stream(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://shoal"+path, body)
	if err != nil {
		return nil, err
	}
	if _, document := body.(*bytes.Reader); body != nil && !document {
		req.Header.Set("Expect", "100-continue") // a refusal comes before the body is sent, and is not lost
	}
	dial := c.Dialer()
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: 10 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	resp, err := h.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		var e struct{ Message string }
		if json.Unmarshal(data, &e) != nil || resp.StatusCode == http.StatusNotFound && resp.Header.Get("Server") != "" && !isShoal(resp.Header.Get("Server")) {
			return nil, errs.New(errs.Unsupported, "the engine at %s does not know %s %s: it is no Shoal, or an older one", c.endpoint.Host, method, path)
		}
		if resp.StatusCode == http.StatusNotFound && strings.HasPrefix(e.Message, "page not found") {
			return nil, errs.New(errs.Unsupported, "the engine at %s does not offer this here (%s %s): it is an older Shoal, or a scoped socket, which has the verbs of its scope only", c.endpoint.Host, method, path)
		}
		return nil, errs.New(kindOf(resp.StatusCode), "Error response from daemon: %s", e.Message)
	}
	return resp.Body, nil
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
