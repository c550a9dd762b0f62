// Package registry is the client of image registries: it pulls images into the store, pushes them out of it, checks
// credentials and searches. It speaks the distribution specification of the Open Container Initiative and what Docker's
// registries add to it, over containerd's resolver, fetcher and pusher. It must not know containers, must not keep
// credentials, and records nothing that is not whole.
package registry
