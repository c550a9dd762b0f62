// Command shoald is the daemon of Shoal: it serves the Docker Engine API and keeps the containers' records. Containers
// outlive it. This file wires and goes; node has the work.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/node"
	"github.com/shoalhq/shoal/node/config"
)

func main() {
	if len(os.Args) > 1 {
		helper(os.Args[1], os.Args[2:])
	}
	cfg, act, err := config.Parse(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return
	case err != nil:
		fail(err)
	case act.Version:
		fmt.Println("Shoal daemon version " + version.String())
		return
	case act.Validate:
		for _, w := range cfg.Warnings {
			fmt.Println("warning:", w)
		}
		fmt.Println("configuration OK")
		return
	}
	if err := failpoint.Arm(os.Getenv(failpoint.EnvName)); err != nil {
		fail(err)
	}
	if err := node.Run(cfg, os.Args[1:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "shoald:", err)
	os.Exit(1)
}
