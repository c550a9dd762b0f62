package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Login finds out whether the registry at auth.ServerAddress takes the credentials, by the request that every registry
// must answer. It returns an identity token when the registry's token server gives one, to be kept instead of the password.
func (c *Client) Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	var res registry.AuthResponse
	domain, err := serverDomain(auth.ServerAddress)
	if err != nil {
		return res, err
	}
	o := c.begin(model.Reference{Domain: domain}, &auth, nil)
	o.settings.Mirrors = nil
	defer o.end()
	hosts, err := o.hosts()
	if err != nil {
		return res, err
	}
	host := hosts[0]
	var refresh string
	client := host.Client
	host.Authorizer = docker.NewDockerAuthorizer(docker.WithAuthClient(tokenClient(client)), docker.WithAuthCreds(o.credentialsFor(host.Host)),
		docker.WithFetchRefreshToken(func(_ context.Context, token string, _ *http.Request) { refresh = token }))
	err = ping(quiet(ctx), host)
	switch {
	case err == nil:
	case errs.Is(err, errs.Unauthorized):
		return res, errs.New(errs.Unauthorized, "login attempt to https://%s/v2/ failed: unauthorized: %w", host.Host, err)
	default:
		return res, explain(ctx, "login to", o.ref, err)
	}
	return registry.AuthResponse{Status: "Login Succeeded", IdentityToken: refresh}, nil
}

// serverDomain is the host of "https://index.docker.io/v1/", "registry.example:5000" and the like.
func serverDomain(address string) (string, error) {
	if address == "" {
		return model.DefaultDomain, nil
	}
	host := strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "index.docker.io", "docker.io", hubHost:
		return model.DefaultDomain, nil
	}
	if u, err := url.Parse("https://" + host); err != nil || u.Host != host || host == "" {
		return "", errs.New(errs.Invalid, "login to %q: want the registry's HOST[:PORT]", address)
	}
	return host, nil
}

// ping asks for the API's version, with credentials once the registry wants them.
func ping(ctx context.Context, host docker.RegistryHost) error {
	res, err := ask(ctx, host, host.Path+"/")
	if err == nil {
		res.Body.Close()
	}
	return err
}

// ask sends a GET request for a path on the host, with credentials once the registry wants them. The answer is a good
// one, to be closed by the caller.
func ask(ctx context.Context, host docker.RegistryHost, path string) (*http.Response, error) {
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, host.Scheme+"://"+host.Host+path, nil)
		if err != nil {
			return nil, err
		}
		for k, v := range host.Header {
			req.Header[k] = v
		}
		req.Header.Set("User-Agent", userAgent())
		if host.Authorizer != nil {
			if err := host.Authorizer.Authorize(ctx, req); err != nil {
				return nil, unauthorized(err)
			}
		}
		res, err := host.Client.Do(req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode == http.StatusOK {
			return res, nil
		}
		status := remoteerrors.NewUnexpectedStatusErr(res)
		res.Body.Close()
		switch {
		case res.StatusCode != http.StatusUnauthorized:
			return nil, status
		case try > 0 || host.Authorizer == nil:
			return nil, unauthorized(status)
		}
		if len(dockerauth.ParseAuthHeader(res.Header)) == 0 {
			return nil, errs.New(errs.Unsupported, "the registry wants credentials, but says no way to give them that is known here (%q)", res.Header.Get("WWW-Authenticate"))
		}
		if err := host.Authorizer.AddResponses(ctx, []*http.Response{res}); err != nil {
			return nil, unauthorized(err)
		}
	}
}

// unauthorized makes the answer of a registry or token server the kind of error that it is.
func unauthorized(err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		if status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests {
			return err
		}
		if text := said(status.Body); text != "" {
			return errs.New(errs.Unauthorized, "%s", text)
		}
		return errs.New(errs.Unauthorized, "incorrect username or password")
	}
	if unreachable(err) {
		return err
	}
	return errs.As(errs.Unauthorized, err)
}

// maxSearch bounds the answer to a search.
const maxSearch = 8 << 20

// Search asks a registry for repositories. A term that begins with a registry's host asks there, by the interface of the
// first Docker registries, which few others offer; what does not is refused with the reason.
func (c *Client) Search(ctx context.Context, term string, limit int, f model.Filters, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	if term == "" {
		return nil, errs.New(errs.Invalid, "search: no term was given")
	}
	if limit == 0 {
		limit = 25
	}
	if limit < 1 || limit > 100 {
		return nil, errs.New(errs.Invalid, "invalid limit %d: it must be from 1 to 100", limit)
	}
	keep, err := searchFilter(f)
	if err != nil {
		return nil, err
	}
	o, text := c.begin(model.Reference{Domain: model.DefaultDomain}, auth, nil), term
	if first, rest, ok := strings.Cut(term, "/"); ok && rest != "" && (strings.ContainsAny(first, ".:") || first == "localhost") {
		if o.ref.Domain, err = serverDomain(first); err != nil {
			return nil, err
		}
		text = rest
	}
	defer o.end()
	host := o.ref.Domain
	if host == model.DefaultDomain {
		host = "index.docker.io"
	}
	list, err := o.search(ctx, host, text, limit)
	if err != nil {
		return nil, err
	}
	out := []registry.SearchResult{}
	for _, r := range list {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out[:min(len(out), limit)], nil
}

func (o *operation) search(ctx context.Context, host, text string, limit int) ([]registry.SearchResult, error) {
	client, scheme, err := o.client(host, "https", "")
	if err != nil {
		return nil, err
	}
	q := url.Values{"q": {text}, "n": {strconv.Itoa(limit)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v1/search?"+q.Encode(), nil)
	if err != nil {
		return nil, errs.As(errs.Invalid, err)
	}
	req.Header.Set("User-Agent", userAgent())
	if user, secret, err := o.credentialsFor(host)(host); err == nil && user != "" {
		req.SetBasicAuth(user, secret)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "search: the registry %s cannot be reached: %w", host, err)
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusMethodNotAllowed:
		return nil, errs.New(errs.Unsupported, "the registry %s offers no search: the distribution specification has none; list the tags of a repository that you know with `curl https://%s/v2/NAME/tags/list`", host, host)
	case res.StatusCode != http.StatusOK:
		return nil, explainStatus("search on", o.ref, remoteerrors.NewUnexpectedStatusErr(res).(remoteerrors.ErrUnexpectedStatus))
	}
	var found registry.SearchResults
	if err := json.NewDecoder(io.LimitReader(res.Body, maxSearch)).Decode(&found); err != nil {
		return nil, errs.New(errs.Unsupported, "the registry %s answers a search with something that is no list of repositories: %w", host, err)
	}
	if host != "index.docker.io" {
		for i := range found.Results {
			found.Results[i].Name = host + "/" + found.Results[i].Name
		}
	}
	return found.Results, nil
}

// searchFilter compiles the filters is-official, is-automated and stars.
func searchFilter(f model.Filters) (func(registry.SearchResult) bool, error) {
	stars := 0
	var checks []func(registry.SearchResult) bool
	for name, values := range f {
		for _, v := range values {
			switch name {
			case "stars":
				n, err := strconv.Atoi(v)
				if err != nil {
					return nil, errs.New(errs.Invalid, "invalid filter 'stars=%s': want a number", v)
				}
				stars = max(stars, n)
			case "is-official", "is-automated":
				want, err := strconv.ParseBool(v)
				if err != nil {
					return nil, errs.New(errs.Invalid, "invalid filter '%s=%s': want true or false", name, v)
				}
				official := name == "is-official"
				checks = append(checks, func(r registry.SearchResult) bool {
					if official {
						return r.IsOfficial == want
					}
					return r.IsAutomated == want
				})
			default:
				return nil, errs.New(errs.Invalid, "invalid filter '%s': search takes is-official, is-automated, stars", name)
			}
		}
	}
	return func(r registry.SearchResult) bool {
		for _, c := range checks {
			if !c(r) {
				return false
			}
		}
		return r.StarCount >= stars
	}, nil
}
