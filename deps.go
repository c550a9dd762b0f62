//go:build deps

// Package shoal keeps modules in go.mod while the rooms that use them are being written.
package shoal

import (
	_ "github.com/moby/buildkit/cache/remotecache/inline"
	_ "github.com/moby/buildkit/cache/remotecache/local"
	_ "github.com/moby/buildkit/cache/remotecache/registry"
	_ "github.com/moby/buildkit/client"
	_ "github.com/moby/buildkit/control"
	_ "github.com/moby/buildkit/executor"
	_ "github.com/moby/buildkit/frontend/dockerfile/builder"
	_ "github.com/moby/buildkit/frontend/gateway/forwarder"
	_ "github.com/moby/buildkit/snapshot/containerd"
	_ "github.com/moby/buildkit/solver/bboltcachestorage"
	_ "github.com/moby/buildkit/util/progress/progressui"
	_ "github.com/moby/buildkit/worker/base"
)
