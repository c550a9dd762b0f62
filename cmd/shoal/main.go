// Command shoal is Shoal's command line.
package main

import (
	"os"

	"github.com/shoalhq/shoal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
