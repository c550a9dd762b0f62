//go:build programs

// Package programs pins the modules of the Open Container Initiative's validation programs, which nothing else of the
// project may depend on: they are of 2018, have no go.mod of their own, and want libraries of that time.
package programs

import (
	_ "github.com/opencontainers/runtime-tools/cmd/runtimetest"
	_ "github.com/opencontainers/runtime-tools/validation/create"
	_ "github.com/opencontainers/runtime-tools/validation/util"
)
