// Command shoal-runtime is the OCI runtime and, with the verb supervise, the process that parents one container. Executed
// by itself as shoal-init it becomes a container's first process; called as docker-init it is the init of --init.
package main

import (
	"os"
	"path/filepath"

	"github.com/shoalhq/shoal/runtime/initproc"
	"github.com/shoalhq/shoal/runtime/ocicli"
	"github.com/shoalhq/shoal/runtime/reaper"
	"github.com/shoalhq/shoal/runtime/supervise"
)

func main() {
	// Before anything else: this process is inside a container already.
	if os.Args[0] == initproc.Name {
		initproc.Main(os.Args)
	}
	if filepath.Base(os.Args[0]) == reaper.Name {
		os.Exit(reaper.Main(os.Args[1:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		os.Exit(supervise.Main(os.Args[2:]))
	}
	os.Exit(ocicli.Main(os.Args[1:]))
}
