// Package cli is the command line `shoal`: Docker's verbs and flags, one file per verb, on top of api/client. It decides
// what is asked and how the answer is shown, and nothing else: it must not touch containers, images or the kernel itself
// (only `doctor` looks at the host, through package doctor).
//
// Starting must cost next to nothing, so only the command that was asked for is built (verbs.go), nothing happens in
// package initialisation, and templates are parsed only when --format asks for one.
package cli
