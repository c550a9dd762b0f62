package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// errStalled ends a try in which nothing came for too long.
var errStalled = errors.New("the registry stopped sending")

// transient says whether trying again may help.
func transient(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errdefs.IsNotFound(err):
		return false
	case errors.As(err, &status):
		return status.StatusCode == http.StatusRequestTimeout || status.StatusCode >= 500 && status.StatusCode != http.StatusNotImplemented
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return false
	}
	switch errs.KindOf(err) {
	case errs.Invalid, errs.NotFound, errs.Damaged, errs.Exhausted, errs.Unsupported, errs.Unauthorized, errs.Forbidden, errs.Conflict:
		return false
	}
	return unreachable(err) || errors.Is(err, errStalled) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errdefs.IsUnavailable(err)
}

// unreachable says whether the network failed, as opposed to the registry answering something.
func unreachable(err error) bool {
	var ue *url.Error // what the HTTP client returns
	var oe *net.OpError
	return errors.As(err, &ue) || errors.As(err, &oe) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// nobodyThere says whether no connection came about: no such host, no route, nothing that listens.
func nobodyThere(err error) bool {
	var oe *net.OpError
	return errors.As(err, &oe) && oe.Op == "dial"
}

// answer is how registries describe errors (distribution specification, "Error Codes").
type answer struct {
	Errors []struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail"`
	} `json:"errors"`
	Details string `json:"details"` // token servers
	Message string `json:"message"`
}

// said is what a registry's error body means to people: "code: message" of each error, or the text itself.
func said(body []byte) string {
	var a answer
	if json.Unmarshal(body, &a) != nil {
		text := strings.TrimSpace(string(body))
		if len(text) > 500 || strings.HasPrefix(text, "<") {
			return "" // a page for browsers
		}
		return text
	}
	var parts []string
	for _, e := range a.Errors {
		part := strings.ToLower(e.Code) + ": " + e.Message
		if detail, ok := e.Detail.(string); ok && detail != "" {
			part += " (" + detail + ")"
		}
		parts = append(parts, part)
	}
	for _, text := range []string{a.Details, a.Message} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}

// explain gives an error of containerd or the network its kind and the sentence that people know from Docker.
func explain(ctx context.Context, what string, ref model.Reference, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return errs.Wrap(ctx.Err(), "%s %s", what, ref.Familiar())
	}
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &status):
		return explainStatus(what, ref, status)
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return denied(what, ref, strings.TrimSpace(strings.TrimSuffix(err.Error(), docker.ErrInvalidAuthorization.Error())))
	case errdefs.IsNotFound(err) && errs.KindOf(err) == errs.Internal:
		return errs.New(errs.NotFound, "manifest for %s not found: manifest unknown: the registry %s has no such tag or digest: %w", ref.Familiar(), ref.Domain, err)
	case errs.Is(err, errs.Exhausted) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT):
		return errs.Wrap(err, "%s %s: what has arrived is kept for the next try", what, ref.Familiar())
	case errs.Is(err, errs.Exhausted):
		return errs.New(errs.Exhausted, "%s %s: the disk is full: %w; free some space (`shoal system prune`) and try again, what has arrived is kept", what, ref.Familiar(), err)
	case errors.Is(err, errStalled):
		return errs.New(errs.Unavailable, "%s %s: %w; try again, what has arrived is kept", what, ref.Familiar(), err)
	case errs.Is(err, errs.Forbidden): // we refused
		return errs.Wrap(err, "%s %s", what, ref.Familiar())
	case unreachable(err):
		return errs.New(errs.Unavailable, "%s %s: the registry %s cannot be reached: %w%s", what, ref.Familiar(), ref.Domain, err, tlsHint(err, ref))
	}
	var local *os.PathError
	if errs.KindOf(err) == errs.Internal && !errors.As(err, &local) {
		return errs.New(errs.Unavailable, "%s %s: the registry %s does not answer as registries do: %w", what, ref.Familiar(), ref.Domain, err)
	}
	return errs.Wrap(err, "%s %s", what, ref.Familiar())
}

func tlsHint(err error, ref model.Reference) string {
	text := err.Error()
	if strings.Contains(text, "x509:") || strings.Contains(text, "tls:") || strings.Contains(text, "HTTP response to HTTPS client") {
		return fmt.Sprintf("; put its authority into certs.d/%s/ca.crt, or, if it shall be trusted without, start the daemon with --insecure-registry %s", ref.Domain, ref.Domain)
	}
	return ""
}

func explainStatus(what string, ref model.Reference, s remoteerrors.ErrUnexpectedStatus) error {
	text := said(s.Body)
	switch s.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return denied(what, ref, text)
	case http.StatusTooManyRequests:
		if text == "" {
			text = "toomanyrequests"
		}
		return errs.New(errs.Unavailable, "%s %s: the registry %s limits how often it may be asked: %s; wait, or log in if it gives more to those it knows", what, ref.Familiar(), ref.Domain, text)
	case http.StatusNotFound:
		return errs.New(errs.NotFound, "manifest for %s not found: manifest unknown: %s", ref.Familiar(), text)
	case http.StatusRequestEntityTooLarge:
		return errs.New(errs.Exhausted, "%s %s: the registry %s does not take content of this size: %s", what, ref.Familiar(), ref.Domain, text)
	}
	kind := errs.Unavailable
	if s.StatusCode < 500 {
		kind = errs.Invalid
	}
	if text != "" {
		text = ": " + text
	}
	return errs.New(kind, "%s %s: the registry %s answered %q to %s %s%s", what, ref.Familiar(), ref.Domain, s.Status, s.RequestMethod, s.RequestURL, text)
}

func denied(what string, ref model.Reference, text string) error {
	if text == "" {
		text = "requested access to the resource is denied"
	}
	return errs.New(errs.NotFound, "%s access denied for %s, repository does not exist or may require 'docker login' (`shoal login %s`): %s", what, ref.FamiliarName(), ref.Domain, text)
}
