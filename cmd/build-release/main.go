// Command build-release writes what a release has beside the programs into a directory: manual pages, completion, the
// licences of linked modules and the bill of materials. scripts/dist runs it. This file only calls package packaging.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/packaging"
)

func main() {
	out := flag.String("out", "", "directory to write to")
	at := flag.Int64("time", 0, "time of the release in seconds since 1970")
	flag.Parse()
	if err := run(*out, time.Unix(*at, 0), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "build-release:", err)
		os.Exit(1)
	}
}

func run(out string, at time.Time, programs []string) error {
	if err := packaging.Manual(out, at); err != nil {
		return err
	}
	linked, err := packaging.Linked(programs)
	if err != nil {
		return err
	}
	delete(linked, "std")
	modules, err := packaging.Modules(slices.Sorted(maps.Keys(linked)))
	if err != nil {
		return err
	}
	texts, err := os.Create(filepath.Join(out, "licences.txt"))
	if err != nil {
		return err
	}
	defer texts.Close()
	if err := packaging.Texts(texts, modules); err != nil {
		return err
	}
	bill, err := os.Create(filepath.Join(out, "shoal.spdx.json"))
	if err != nil {
		return err
	}
	defer bill.Close()
	return packaging.SBOM(bill, "shoal", version.Version, at, programs, modules)
}
