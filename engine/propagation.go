package engine

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// checkPropagation refuses to promise what the source's own mount does not do: what is mounted in a container reaches the
// host only through a shared mount, and what the host mounts reaches the container only from a shared mount or one that
// is itself fed by one.
func checkPropagation(mp *model.MountPoint) error {
	shared := mp.Propagation == "shared" || mp.Propagation == "rshared"
	slave := mp.Propagation == "slave" || mp.Propagation == "rslave"
	if !shared && !slave {
		return nil
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, mp.Source, 0, unix.STATX_MNT_ID, &st); err != nil {
		return errs.Wrap(err, "bind mount on %s: find the mount that %s is on", mp.Destination, mp.Source)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return errs.Wrap(err, "bind mount on %s", mp.Destination)
	}
	place, tags := mountTags(string(table), st.Mnt_id)
	has := func(kind string) bool {
		return slices.ContainsFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, kind+":") })
	}
	switch {
	case has("shared"), slave && has("master"):
		return nil
	case shared:
		return invalid("path %s is mounted on %s but it is not a shared mount, which propagation %s of the mount on %s needs: make it one with mount --make-shared %s",
			mp.Source, place, mp.Propagation, mp.Destination, place)
	}
	return invalid("path %s is mounted on %s but it is not a shared or slave mount, which propagation %s of the mount on %s needs: make it one with mount --make-shared %s",
		mp.Source, place, mp.Propagation, mp.Destination, place)
}

// mountTags finds a mount by its number in a table of the form of proc(5), /proc/pid/mountinfo, and gives its place and
// its optional fields.
func mountTags(table string, id uint64) (place string, tags []string) {
	for line := range strings.Lines(table) {
		number, _, _ := strings.Cut(line, " ")
		if number != strconv.FormatUint(id, 10) {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 7 {
			return "", nil
		}
		end := slices.Index(fields, "-")
		if end < 6 {
			end = len(fields)
		}
		return fields[4], fields[6:end]
	}
	return "", nil
}
