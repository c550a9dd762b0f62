// Command build-images makes the archives of the built-in images (hello, whoami, toolbox) that the daemon embeds. Run it
// from the module's directory before building the daemon: go run ./cmd/build-images
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/shoalhq/shoal/image/builtin/assemble"
)

func main() {
	o := assemble.Options{Time: assemble.Epoch}
	flag.StringVar(&o.GOARCH, "arch", runtime.GOARCH, "architecture of the images, as GOARCH names it")
	flag.StringVar(&o.Out, "out", "image/builtin/archives", "directory of the archives")
	flag.StringVar(&o.Module, "module", ".", "directory of the module")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "build-images:", err)
		os.Exit(1)
	}
}

func run(o assemble.Options) error {
	applets, err := assemble.Applets("toolbox", o)
	if err != nil {
		return err
	}
	tiny, err := assemble.Applets("toolbox/tiny", o)
	if err != nil {
		return err
	}
	for _, img := range assemble.Images(applets, tiny) {
		digest, err := assemble.Make(context.Background(), img, o)
		if err != nil {
			return fmt.Errorf("image %s: %w", img.Name, err)
		}
		fmt.Println(img.Name, digest)
	}
	return nil
}
