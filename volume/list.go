package volume

import (
	"context"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/model"
)

// List gives the volumes that pass the filters (dangling, driver, label, name), by name, with usage their sizes and
// reference counts as well, and what could not be found out.
func (v *Volumes) List(ctx context.Context, filters model.Filters, usage bool) (volumes []model.Volume, warnings []string, err error) {
	elsewhere, warnings := v.everywhere(ctx)
	list, err := v.list(filters, elsewhere)
	if err != nil || !usage {
		return list, warnings, err
	}
	for i := range list {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		u := &model.VolumeUsage{Size: -1, RefCount: len(v.Users(list[i].Name))}
		list[i].Usage = u
		if !plain(list[i]) {
			continue // another filesystem, or a directory that is not the volume's
		}
		size, err := diskUse(list[i].Mountpoint)
		if err != nil {
			warnings = append(warnings, "size of volume "+list[i].Name+": "+err.Error())
			continue
		}
		u.Size = size
	}
	return list, warnings, nil
}

// list filters the volumes that are recorded here and those that plug-ins have besides.
func (v *Volumes) list(filters model.Filters, elsewhere map[string]model.Volume) ([]model.Volume, error) {
	keep, err := compile(filters, "dangling", "driver", "label", "label!", "name")
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.load(); err != nil {
		return nil, err
	}
	var out []model.Volume
	for _, e := range v.all {
		if !keep(e) {
			continue
		}
		vol := e.volume
		if now, ok := elsewhere[vol.Name]; ok && now.Driver == vol.Driver {
			vol.Mountpoint = now.Mountpoint
		}
		out = append(out, vol)
	}
	for name, vol := range elsewhere {
		if e := newEntry(vol); v.all[name] == nil && keep(e) {
			vol.Status = nil
			out = append(out, vol)
		}
	}
	slices.SortFunc(out, func(a, b model.Volume) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Prune removes the volumes that no container refers to: the anonymous ones, or with the filter all=true every one.
// Filters are all, label and label!.
func (v *Volumes) Prune(ctx context.Context, filters model.Filters) (model.VolumePruneReport, error) {
	var report model.VolumePruneReport
	keep, err := compile(filters, "all", "label", "label!")
	if err != nil {
		return report, err
	}
	all := slices.Contains(filters["all"], "true") || slices.Contains(filters["all"], "1")
	v.mu.Lock()
	err = v.load()
	var names []string
	for name, e := range v.all {
		if len(e.users) == 0 && !foreign(e.volume) && (all || e.volume.Anonymous) && keep(e) {
			names = append(names, name)
		}
	}
	v.mu.Unlock()
	if err != nil {
		return report, err
	}
	slices.Sort(names)
	for _, name := range names {
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		unlock := v.busy.Lock(name)
		size, _ := diskUse(v.data(name))
		err := v.remove(ctx, name, false)
		unlock()
		if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
			v.cfg.Log.Warn("volume is not pruned", "volume", name, "reason", err)
			continue
		}
		if err != nil {
			return report, err
		}
		report.Deleted = append(report.Deleted, name)
		report.Reclaimed += size
	}
	return report, nil
}

// diskUse is what a tree takes on the disk it is on, each file once; other filesystems mounted within are left out.
func diskUse(dir string) (int64, error) {
	var top unix.Stat_t
	if err := unix.Stat(dir, &top); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	sum := top.Blocks * 512
	seen := map[uint64]bool{}
	err := openat.Walk(dir, func(_ string, _ int, _ string, st *unix.Stat_t) error {
		if st.Dev != top.Dev {
			return fs.SkipDir
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}

// compile makes one test of the filters; unknown ones are Invalid.
func compile(filters model.Filters, known ...string) (func(*entry) bool, error) {
	for name, values := range filters {
		if !slices.Contains(known, name) {
			return nil, errs.New(errs.Invalid, "invalid filter '%s': volumes can be filtered here by %s", name, strings.Join(known, ", "))
		}
		if name == "dangling" || name == "all" {
			for _, value := range values {
				if _, err := strconv.ParseBool(value); err != nil {
					return nil, errs.New(errs.Invalid, "invalid filter '%s=%s': want true or false", name, value)
				}
			}
		}
	}
	hasLabel := func(e *entry, want string) bool {
		key, value, hasValue := strings.Cut(want, "=")
		got, ok := e.volume.Labels[key]
		return ok && (!hasValue || got == value)
	}
	any := func(name string, test func(string) bool) bool {
		return len(filters[name]) == 0 || slices.ContainsFunc(filters[name], test)
	}
	return func(e *entry) bool {
		for _, l := range filters["label"] {
			if !hasLabel(e, l) {
				return false
			}
		}
		for _, l := range filters["label!"] {
			if hasLabel(e, l) {
				return false
			}
		}
		return any("dangling", func(s string) bool { want, _ := strconv.ParseBool(s); return want == (len(e.users) == 0) }) &&
			any("driver", func(s string) bool { return s == e.volume.Driver }) &&
			any("name", func(s string) bool { return strings.Contains(e.volume.Name, s) })
	}, nil
}
