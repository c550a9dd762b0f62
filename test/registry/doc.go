// Package registry holds the tests of image distribution against real registries: Debian's docker-registry, Shoal's own,
// and ones that misbehave on purpose, with skopeo as the independent witness of what was sent. It must not be imported.
package registry
