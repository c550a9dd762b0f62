// Package conformance runs the validation programs of other projects against the real binaries. It must not test what
// Shoal's own tests test.
package conformance
