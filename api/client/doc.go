// Package client is the Go client for a Docker Engine API, as Shoal's command line uses it: github.com/moby/moby/client
// with the choice of the host made as Docker's command line makes it, and Shoal's own additions. It must not print, read
// a terminal, or know the daemon's rooms.
//
// Use:
//
//	c, err := client.New(ctx, client.Options{Host: flagHost, Context: flagContext, ConfigDir: flagConfig, TLS: tls})
//	defer c.Close()
//	res, err := c.ContainerCreate(ctx, moby.ContainerCreateOptions{...})   // every method of *moby.Client
//
// where moby is github.com/moby/moby/client. New connects to nothing and costs some ten microseconds; the first request
// asks for the server's version on the same connection (a fifth of a millisecond on a unix socket) and uses the newest
// that both know. Options.APIVersion and DOCKER_API_VERSION fix the version instead.
//
// The host is the first of: Options.Host; Options.Context; SHOAL_HOST; DOCKER_HOST; DOCKER_CONTEXT; the configuration
// file's currentContext; DefaultHost. Hosts are unix:///path, tcp://host:port, http(s)://..., ssh://[user@]host[:port]
// (runs the system's ssh, and "shoal system dial-stdio" there, or docker's where there is no shoal) and bare paths
// ("/run/x.sock" is unix:///run/x.sock). Contexts are read from, and written to, Docker's own store under ConfigDir
// (DOCKER_CONFIG or ~/.docker): see ListContexts, LoadContext, SaveContext, RemoveContext, UseContext.
//
// Errors of New are lib/errs kinds. Errors of requests are the moby client's; IsConnection says that no server was
// reached, and Explain turns one into a sentence that says what to do. errdefs (github.com/containerd/errdefs)
// classifies the server's answers, for example errdefs.IsNotFound.
package client
