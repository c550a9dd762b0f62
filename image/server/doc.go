// Package server is the built-in registry: the distribution specification of the Open Container Initiative (1.1) over the
// image store, so that an image that is here is served without a copy, and one that is pushed here can run without one.
// Repositories, tags and referrers are in a book of its own (registry.db); blobs and manifests are in the store, held by
// a lease. It must not know containers or the daemon's API.
//
// The HTTP layer is our own: the runner-up, cuelabs.dev/go/oci/ociregistry, has an interface of writers that does not fit
// the store's resumable ingests (an upload there does not outlive the process), and knows no stalled clients.
package server
