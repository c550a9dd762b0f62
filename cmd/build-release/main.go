// Command build-release writes what a release has beside the programs into a directory: manual pages, completion, the
// licences of linked modules and the bill of materials. scripts/dist runs it. This file only calls package packaging.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/packaging"
	"github.com/shoalhq/shoal/runtime/ocicli"
)

func main() {
	out := flag.String("out", "", "directory to write to")
	at := flag.Int64("time", 0, "time of the release in seconds since 1970")
	check := flag.String("check", "", "check the packages and bills of this directory instead")
	flag.Parse()
	do := func() error { return run(*out, time.Unix(*at, 0), flag.Args()) }
	if *check != "" {
		do = func() error { return checkRelease(*check) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "build-release:", err)
		os.Exit(1)
	}
}

func run(out string, at time.Time, programs []string) error {
	if err := packaging.Manual(out, at); err != nil {
		return err
	}
	if err := pages(out, at); err != nil {
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

// pages writes the manual pages of the two programs that are not the command line.
func pages(out string, at time.Time) error {
	var daemon, runtime bytes.Buffer
	if _, _, err := config.Parse([]string{"--help"}, &daemon); !errors.Is(err, pflag.ErrHelp) {
		return err
	}
	ocicli.Usage(&runtime)
	if err := os.MkdirAll(filepath.Join(out, "man8"), 0o755); err != nil {
		return err
	}
	for _, p := range []struct{ name, does, usage string }{
		{"shoald", "the daemon of Shoal, a container engine", daemon.String()},
		{"shoal-runtime", "run containers from OCI bundles", runtime.String()},
	} {
		var page bytes.Buffer
		if err := packaging.UsagePage(&page, p.name, p.does, p.usage, at); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, "man8", p.name+".8"), page.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// checkRelease checks packages; a path of this directory in a program would differ on another machine.
func checkRelease(dir string) error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	return packaging.CheckRelease(dir, filepath.Join(here, "cmd/shoal"))
}
