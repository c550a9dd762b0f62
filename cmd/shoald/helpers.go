package main

import (
	"os"

	"github.com/shoalhq/shoal/cli/buildclient"
	"github.com/shoalhq/shoal/node"
	"github.com/shoalhq/shoal/oci"
	"github.com/shoalhq/shoal/runtime/logs/tlsdial"
)

// helper is what the other programs of Shoal start this one for; it returns when the word names nothing of the kind.
func helper(word string, args []string) {
	switch {
	case word == "registry":
		if err := node.Registry(args, os.Stdout); err != nil {
			fail(err)
		}
		os.Exit(0)
	case word == "cleanup":
		if err := node.Cleanup(args, os.Stdout); err != nil {
			fail(err)
		}
		os.Exit(0)
	case word == "oci":
		os.Exit(oci.Main(args))
	case word == "build-client" && len(args) == 1: // by `shoal build`
		os.Exit(buildclient.Main(args[0]))
	case word == "log-forward" && len(args) == 0: // by supervisors, for log servers behind TLS
		os.Exit(tlsdial.Main())
	}
}
