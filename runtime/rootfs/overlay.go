package rootfs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// mountOverlay makes a detached overlay. Layers are given one by one where the kernel takes them so (6.5): no limit by
// the size of a page and no character with a meaning; else as one option of short names relative to a common parent.
func mountOverlay(o *spec.RootfsOverlay, label string) (int, error) {
	if len(o.Lower) == 0 {
		return -1, errs.New(errs.Invalid, "the overlay annotation names no lower directory")
	}
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("overlay file system: %w; load the kernel module overlay%s", err, kernelHint(err))
	}
	defer unix.Close(ctx)
	if err := setLowers(ctx, o.Lower); err != nil {
		return -1, errs.Wrap(err, "overlay")
	}
	type pair struct{ key, value string }
	pairs := []pair{{"source", "overlay"}}
	if o.Upper != "" {
		pairs = append(pairs, pair{"upperdir", o.Upper}, pair{"workdir", o.Work})
	}
	if label != "" {
		pairs = append(pairs, pair{"context", label})
	}
	for _, p := range pairs {
		if err := unix.FsconfigSetString(ctx, p.key, p.value); err != nil {
			return -1, errs.Wrap(contextErr(ctx, err, p.key+" "+p.value), "overlay")
		}
	}
	for _, opt := range o.Options {
		if err := setOption(ctx, opt); err != nil {
			return -1, errs.Wrap(contextErr(ctx, err, "option "+opt), "overlay")
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, errs.Wrap(contextErr(ctx, err, "create"), "overlay of %d layers", len(o.Lower))
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, errs.Wrap(contextErr(ctx, err, "mount"), "overlay")
	}
	return fd, nil
}

func setLowers(ctx int, lowers []string) error {
	for i, dir := range lowers {
		err := unix.FsconfigSetString(ctx, "lowerdir+", dir)
		if err == unix.EINVAL && i == 0 {
			return setLowersOld(ctx, lowers)
		}
		if err != nil {
			return contextErr(ctx, err, "lower directory "+dir)
		}
	}
	return nil
}

func setLowersOld(ctx int, lowers []string) error {
	list := escapeLowers(lowers)
	// fsconfig takes at most 256 bytes of a string: longer lists go through short names of descriptors.
	if len(list) >= maxString {
		var files []*os.File
		defer func() {
			for _, f := range files {
				f.Close()
			}
		}()
		short := make([]string, len(lowers))
		for i, dir := range lowers {
			f, err := os.OpenFile(dir, openPath|unix.O_DIRECTORY, 0)
			if err != nil {
				return err
			}
			files = append(files, f)
			short[i] = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		}
		list = strings.Join(short, ":")
	}
	if len(list) >= maxString {
		return errs.New(errs.Unsupported, "%d image layers are too many for an overlay on this kernel; Linux 6.5 takes 500", len(lowers))
	}
	if err := unix.FsconfigSetString(ctx, "lowerdir", list); err != nil {
		return contextErr(ctx, err, "lowerdir")
	}
	return nil
}

// maxString is how long a string fsconfig takes, with its end.
const maxString = 256

// splitLowers is the opposite of escapeLowers.
func splitLowers(list string) []string {
	var out []string
	var dir strings.Builder
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && i+1 < len(list):
			i++
			dir.WriteByte(list[i])
		case c == ':':
			out = append(out, dir.String())
			dir.Reset()
		default:
			dir.WriteByte(c)
		}
	}
	return append(out, dir.String())
}

func escapeLowers(lowers []string) string {
	escaped := make([]string, len(lowers))
	for i, dir := range lowers {
		escaped[i] = strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(dir)
	}
	return strings.Join(escaped, ":")
}
