// Command shoal is Shoal's command line: Docker's verbs and flags for any Docker Engine API. This file only starts package
// cli; nothing else belongs here.
package main

import (
	"os"

	"github.com/shoalhq/shoal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
