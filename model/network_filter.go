package model

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// NetworkFilter makes one test of a list's or prune's filters on networks: dangling, driver, id, label, label!, name,
// scope, type, until (a time in Unix seconds, RFC 3339, or a duration before now). endpoints counts what is on a network.
func NetworkFilter(f Filters, now time.Time, endpoints func(id string) int) (func(Network) bool, error) {
	var until time.Time
	for key, values := range f {
		for _, v := range values {
			var err error
			switch key {
			case "driver", "id", "label", "label!", "name", "scope":
			case "dangling":
				_, err = strconv.ParseBool(v)
			case "type":
				if v != "custom" && v != "builtin" {
					err = errs.New(errs.Invalid, "want custom or builtin")
				}
			case "until":
				until, err = parseUntil(v, now)
			default:
				return nil, errs.New(errs.Invalid, "invalid filter '%s': networks can be filtered by dangling, driver, id, label, name, scope, type", key)
			}
			if err != nil {
				return nil, errs.New(errs.Invalid, "invalid filter '%s=%s': %w", key, v, err)
			}
		}
	}
	any := func(key string, test func(string) bool) bool {
		return len(f[key]) == 0 || slices.ContainsFunc(f[key], test)
	}
	return func(n Network) bool {
		return f.MatchLabels(n.Labels) && (until.IsZero() || n.Created.Before(until)) &&
			any("driver", func(v string) bool { return v == n.Driver }) &&
			any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
			any("name", func(v string) bool { return strings.Contains(n.Name, v) }) &&
			any("scope", func(v string) bool { return v == n.Scope }) &&
			any("type", func(v string) bool { return (v == "builtin") == n.Predefined() }) &&
			any("dangling", func(v string) bool {
				want, _ := strconv.ParseBool(v)
				return want == (!n.Predefined() && endpoints(n.ID) == 0)
			})
	}, nil
}

func parseUntil(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(s*float64(time.Second))), nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return t, errs.New(errs.Invalid, "want a time (Unix seconds or RFC 3339) or a duration such as 24h")
	}
	return t, nil
}
