package ocicli

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/runtime/privilege"
	"github.com/shoalhq/shoal/runtime/rootfs"
	"github.com/shoalhq/shoal/runtime/seccomp"
	"github.com/shoalhq/shoal/runtime/spec"
)

func (c *command) features(args []string) (int, error) {
	if _, err := parse(flags("features"), args, 0, 0, ""); err != nil {
		return 1, err
	}
	doc := spec.Features(version.Version, privilege.CapNames(), rootfs.OptionNames())
	doc.Linux.Seccomp.Archs = seccomp.Architectures()
	return 0, c.printJSON(doc)
}

func (c *command) spec(args []string) (int, error) {
	f := flags("spec")
	bundle := f.String("bundle", ".", "")
	f.StringVar(bundle, "b", ".", "")
	rootless := f.Bool("rootless", false, "")
	if _, err := parse(f, args, 0, 0, "[--bundle DIR] [--rootless]"); err != nil {
		return 1, err
	}
	s := spec.Example()
	if *rootless {
		spec.ToRootless(s, os.Geteuid(), os.Getegid())
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return 1, err
	}
	file := filepath.Join(*bundle, spec.ConfigFile)
	w, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return 1, errs.New(errs.Conflict, "file %s exists; remove it first", file)
	}
	if err != nil {
		return 1, err
	}
	_, err = w.Write(append(data, '\n'))
	return 1 * btoi(err != nil), errors.Join(err, w.Close())
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

const maxInput = 16 << 20

func readAll(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, maxInput)) }
