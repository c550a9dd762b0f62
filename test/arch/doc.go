// Package arch holds the tests that keep the house in order: who may import whom, package comments, sizes of files,
// functions and structs, the purity of the decision packages, and the modules linked into each shipped binary. It must
// not test behaviour.
package arch
