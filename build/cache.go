package build

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Cache lists the build cache. Without any build it costs nothing.
func (b *Builder) Cache(ctx context.Context) ([]model.BuildCacheRecord, error) {
	if !b.Used() {
		return nil, nil
	}
	eng, err := b.engine(ctx)
	if err != nil {
		return nil, err
	}
	list, err := eng.worker.DiskUsage(ctx, client.DiskUsageInfo{})
	if err != nil {
		return nil, errs.Wrap(err, "list the build cache")
	}
	out := make([]model.BuildCacheRecord, 0, len(list))
	for _, u := range list {
		r := model.BuildCacheRecord{ID: u.ID, Parents: u.Parents, Type: string(u.RecordType), Description: u.Description, InUse: u.InUse,
			Shared: u.Shared, Size: u.Size, Created: u.CreatedAt, UsageCount: u.UsageCount}
		if u.LastUsedAt != nil {
			r.LastUsed = *u.LastUsedAt
		}
		out = append(out, r)
	}
	return out, nil
}

// Prune removes build cache that no build uses now.
func (b *Builder) Prune(ctx context.Context, o model.BuildPruneOptions) (model.BuildPruneReport, error) {
	var report model.BuildPruneReport
	req, err := pruneRequest(o, time.Now())
	if err != nil || !b.Used() {
		return report, err
	}
	eng, err := b.engine(ctx)
	if err != nil {
		return report, err
	}
	err = eng.control.Prune(req, pruneStream{stream{ctx}, func(u *controlapi.UsageRecord) {
		report.Deleted = append(report.Deleted, u.ID)
		report.Reclaimed += u.Size
	}})
	return report, errs.Wrap(err, "prune the build cache")
}

// pruneRequest says the same in BuildKit's words. Filters of different keys must all hold.
func pruneRequest(o model.BuildPruneOptions, now time.Time) (*controlapi.PruneRequest, error) {
	p := &controlapi.PruneRequest{All: o.All, ReservedSpace: o.ReservedSize, MaxUsedSpace: o.MaxUsed, MinFreeSpace: o.MinFree}
	var all []string
	for key, values := range o.Filters {
		for _, v := range values {
			switch key {
			case "until", "unused-for":
				age, err := keepAge(v, now)
				if err != nil {
					return nil, err
				}
				p.KeepDuration = int64(age)
			case "id":
				all = append(all, key+"~="+strconv.Quote("^"+regexp.QuoteMeta(v)))
			case "parent", "type", "description":
				all = append(all, key+"=="+strconv.Quote(v))
			case "inuse", "shared", "private", "mutable", "immutable":
				if v == "false" || v == "0" {
					all = append(all, key+"!=true")
				} else {
					all = append(all, key)
				}
			default:
				return nil, errs.New(errs.Invalid, "invalid filter '%s': use description, id, inuse, parent, private, shared, type, until or unused-for", key)
			}
		}
	}
	if len(all) > 0 {
		p.Filter = []string{strings.Join(all, ",")}
	}
	return p, nil
}

// keepAge reads a duration such as 24h, or a time.
func keepAge(v string, now time.Time) (time.Duration, error) {
	if d, err := time.ParseDuration(v); err == nil && d >= 0 {
		return d, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return max(now.Sub(t), 0), nil
		}
	}
	if secs, err := strconv.ParseInt(v, 10, 64); err == nil {
		return max(now.Sub(time.Unix(secs, 0)), 0), nil
	}
	return 0, errs.New(errs.Invalid, "filter until=%q: want a duration (24h) or a time (2026-01-02T15:04:05)", v)
}
