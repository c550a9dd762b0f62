package main

import (
	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/base64"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/chmod"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/find"
	"github.com/u-root/u-root/pkg/core/gzip"
	"github.com/u-root/u-root/pkg/core/ls"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mktemp"
	"github.com/u-root/u-root/pkg/core/mv"
	"github.com/u-root/u-root/pkg/core/rm"
	"github.com/u-root/u-root/pkg/core/tar"
	"github.com/u-root/u-root/pkg/core/touch"
	"github.com/u-root/u-root/pkg/core/xargs"
)

// coreTools are u-root's.
func coreTools() map[string]tool {
	of := func(make func() core.Command) tool {
		return func(c *call) error {
			command := make()
			command.SetIO(c.in, c.out, c.err)
			return command.Run(c.args...)
		}
	}
	zip := func(name string) tool { return of(func() core.Command { return gzip.New(name) }) }
	return map[string]tool{"base64": of(base64.New), "cat": of(cat.New), "chmod": of(chmod.New), "cp": of(cp.New), "find": of(find.New),
		"gzip": zip("gzip"), "gunzip": zip("gunzip"), "zcat": zip("gzcat"), "ls": of(ls.New), "mkdir": of(mkdir.New), "mktemp": of(mktemp.New),
		"mv": of(mv.New), "rm": of(rm.New), "tar": of(func() core.Command { return tar.New() }), "touch": of(touch.New), "xargs": of(xargs.New)}
}
