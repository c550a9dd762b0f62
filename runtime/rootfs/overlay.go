package rootfs

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/overlay"
	"github.com/shoalhq/shoal/runtime/spec"
)

// MountOverlay makes a detached overlay. Layers are given one by one where the kernel takes them so (6.8): no limit by
// the size of a page and no character with a meaning.
func MountOverlay(o *spec.RootfsOverlay, label string) (int, error) {
	if len(o.Lower) == 0 {
		return -1, errs.New(errs.Invalid, "the overlay annotation names no lower directory")
	}
	if overlay.Classic() {
		fd, err := classicOverlay(overlay.Dirs{Lower: o.Lower, Upper: o.Upper, Work: o.Work, Options: o.Options}, label)
		return fd, errs.Wrap(err, "root file system")
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
	for _, dir := range lowers {
		if err := unix.FsconfigSetString(ctx, "lowerdir+", dir); err != nil {
			return contextErr(ctx, err, "lower directory "+dir)
		}
	}
	return nil
}

// classicOverlay is for kernels that take long lists of layers by mount(2) only. They make id-mapped and labelled overlays, too.
func classicOverlay(d overlay.Dirs, label string) (int, error) {
	if label != "" {
		d.Options = append(slices.Clip(d.Options), `context="`+label+`"`)
	}
	f, err := overlay.MountClassic(d)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
}

// classicFS is newFS for overlays.
func classicFS(data []string, attrs uint64) (int, error) {
	fd, err := classicOverlay(overlayOf(data), "")
	if err != nil {
		return -1, err
	}
	if err := setAttr(fd, attrs, 0, false); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// overlayOf reads the options of an overlay that the configuration itself asks for.
func overlayOf(data []string) (d overlay.Dirs) {
	for item := range strings.SplitSeq(strings.Join(data, ","), ",") {
		switch key, value, _ := strings.Cut(item, "="); key {
		case "lowerdir":
			d.Lower = splitLowers(value)
		case "upperdir":
			d.Upper = value
		case "workdir":
			d.Work = value
		case "":
		default:
			d.Options = append(d.Options, item)
		}
	}
	return d
}

// maxString is how long a string fsconfig takes, with its end.
const maxString = 256

// splitLowers takes a list of directories apart, where colons within names are escaped.
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
