package engine

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// List gives the containers that match, newest first.
func (e *Engine) List(ctx context.Context, opts model.ListOptions) ([]model.ContainerView, error) {
	f, err := e.compileFilters(ctx, opts.Filters)
	if err != nil {
		return nil, err
	}
	all := opts.All || opts.Limit > 0 || len(opts.Filters["status"]) > 0 || len(opts.Filters["exited"]) > 0
	out := []model.ContainerView{}
	for _, en := range e.index.sorted() {
		c := en.get()
		if !all && !c.State.Alive() && c.State.Status != model.StatusRestarting {
			continue
		}
		if !f.match(c) {
			continue
		}
		out = append(out, e.view(en, c))
		if opts.Limit > 0 && len(out) == opts.Limit {
			break
		}
	}
	if opts.Size {
		for i := range out {
			if err := ctx.Err(); err != nil {
				return nil, errs.As(errs.KindOf(err), err)
			}
			e.addSize(ctx, &out[i])
		}
	}
	return out, nil
}

// Inspect gives one container whole.
func (e *Engine) Inspect(ctx context.Context, ref string, size bool) (model.ContainerView, error) {
	en, err := e.find(ref)
	if err != nil {
		return model.ContainerView{}, err
	}
	v := e.view(en, en.get())
	if dirs, err := e.overlay(ctx, &v.Container); err == nil {
		v.Overlay = &dirs
	}
	if e.cfg.StorageDriver != nil {
		v.StorageDriver = e.cfg.StorageDriver(ctx)
	}
	if size {
		e.addSize(ctx, &v)
	}
	return v, nil
}

func (e *Engine) view(en *entry, c *model.Container) model.ContainerView {
	return model.ContainerView{Container: *c, ExecIDs: e.execs.of(en.id)}
}

func (e *Engine) addSize(ctx context.Context, v *model.ContainerView) {
	dirs, err := e.overlay(ctx, &v.Container)
	if err != nil {
		return
	}
	size, err := e.ports.RootFS.Size(ctx, dirs, true)
	if err != nil {
		e.cfg.Log.Debug("the size of a container could not be found", "container", v.ID, "error", err)
		return
	}
	v.Size = &size
}

// filter is one compiled list filter: all must match.
type filter []func(c *model.Container) bool

func (f filter) match(c *model.Container) bool {
	for _, one := range f {
		if !one(c) {
			return false
		}
	}
	return true
}

// compileFilters reads the filters of a list; an unknown key or value is Invalid.
func (e *Engine) compileFilters(ctx context.Context, filters model.Filters) (filter, error) {
	var f filter
	for key, values := range filters {
		if len(values) == 0 {
			continue
		}
		make, ok := filterKinds[key]
		if !ok {
			return nil, invalid("invalid filter '%s'; known are ancestor, annotation, before, expose, exited, health, id, is-task, label, name, network, publish, since, status, volume", key)
		}
		one, err := make(e, ctx, values)
		if err != nil {
			return nil, err
		}
		f = append(f, one)
	}
	return f, nil
}

type match = func(c *model.Container) bool

var filterKinds = map[string]func(e *Engine, ctx context.Context, values []string) (match, error){
	"id":         filterID,
	"name":       filterName,
	"label":      filterLabel,
	"annotation": filterAnnotation,
	"status":     filterStatus,
	"exited":     filterExited,
	"health":     filterHealth,
	"is-task":    filterIsTask,
	"before":     filterBefore,
	"since":      filterSince,
	"volume":     filterVolume,
	"network":    filterNetwork,
	"publish":    filterPublish,
	"expose":     filterExpose,
	"ancestor":   filterAncestor,
}

// matches compares as Docker's filters do: equal, or the value as a regular expression found anywhere.
func matches(values []string) func(text string) bool {
	var exprs []*regexp.Regexp
	for _, v := range values {
		if re, err := regexp.Compile(v); err == nil {
			exprs = append(exprs, re)
		}
	}
	return func(text string) bool {
		return slices.Contains(values, text) || slices.ContainsFunc(exprs, func(re *regexp.Regexp) bool { return re.MatchString(text) })
	}
}

func filterID(_ *Engine, _ context.Context, values []string) (match, error) {
	return func(c *model.Container) bool {
		return slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(c.ID, strings.TrimPrefix(v, "^")) })
	}, nil
}

func filterName(_ *Engine, _ context.Context, values []string) (match, error) {
	test := matches(values)
	return func(c *model.Container) bool { return test(c.Name) || test("/"+c.Name) }, nil
}

func filterLabel(_ *Engine, _ context.Context, values []string) (match, error) {
	return func(c *model.Container) bool { return matchLabels(c.Spec.Labels, values) }, nil
}

func filterAnnotation(_ *Engine, _ context.Context, values []string) (match, error) {
	return func(c *model.Container) bool { return matchLabels(c.Spec.Options.Annotations, values) }, nil
}

// matchLabels wants every "key" to be there and every "key=value" to be equal.
func matchLabels(labels map[string]string, values []string) bool {
	for _, v := range values {
		key, want, has := strings.Cut(v, "=")
		got, there := labels[key]
		if !there || has && got != want {
			return false
		}
	}
	return true
}

var statuses = []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}

func filterStatus(_ *Engine, _ context.Context, values []string) (match, error) {
	for _, v := range values {
		if !slices.Contains(statuses, v) {
			return nil, invalid("invalid filter 'status=%s'; known are %s", v, strings.Join(statuses, ", "))
		}
	}
	return func(c *model.Container) bool { return slices.Contains(values, string(c.State.Status)) }, nil
}

func filterExited(_ *Engine, _ context.Context, values []string) (match, error) {
	var codes []int
	for _, v := range values {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, invalid("invalid filter 'exited=%s': want an exit code", v)
		}
		codes = append(codes, n)
	}
	return func(c *model.Container) bool {
		return !c.State.FinishedAt.IsZero() && !c.State.Alive() && slices.Contains(codes, c.State.ExitCode)
	}, nil
}

func filterHealth(_ *Engine, _ context.Context, values []string) (match, error) {
	known := []string{"none", healthStarting, healthHealthy, healthUnhealthy}
	for _, v := range values {
		if !slices.Contains(known, v) {
			return nil, invalid("invalid filter 'health=%s'; known are %s", v, strings.Join(known, ", "))
		}
	}
	return func(c *model.Container) bool {
		status := "none"
		if c.State.Health != nil {
			status = c.State.Health.Status
		}
		return slices.Contains(values, status)
	}, nil
}

func filterIsTask(_ *Engine, _ context.Context, values []string) (match, error) {
	var wanted []bool
	for _, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return nil, invalid("invalid filter 'is-task=%s': want true or false", v)
		}
		wanted = append(wanted, b)
	}
	return func(c *model.Container) bool {
		_, task := c.Spec.Labels["com.docker.swarm.task"]
		return slices.Contains(wanted, task)
	}, nil
}

func filterBefore(e *Engine, _ context.Context, values []string) (match, error) {
	return e.filterCreated(values, func(c, other *model.Container) bool { return c.Created.Before(other.Created) })
}

func filterSince(e *Engine, _ context.Context, values []string) (match, error) {
	return e.filterCreated(values, func(c, other *model.Container) bool { return c.Created.After(other.Created) })
}

func (e *Engine) filterCreated(values []string, test func(c, other *model.Container) bool) (match, error) {
	var others []*model.Container
	for _, v := range values {
		en, err := e.find(v)
		if err != nil {
			return nil, err
		}
		others = append(others, en.get())
	}
	return func(c *model.Container) bool {
		return !slices.ContainsFunc(others, func(o *model.Container) bool { return c.ID == o.ID || !test(c, o) })
	}, nil
}

func filterVolume(_ *Engine, _ context.Context, values []string) (match, error) {
	return func(c *model.Container) bool {
		return slices.ContainsFunc(c.Mounts, func(mp model.MountPoint) bool {
			return slices.ContainsFunc(values, func(v string) bool {
				return mp.Name != "" && mp.Name == v || mp.Destination == path.Clean(v) || mp.Type == "bind" && mp.Source == path.Clean(v)
			})
		})
	}, nil
}

func filterNetwork(_ *Engine, _ context.Context, values []string) (match, error) {
	return func(c *model.Container) bool {
		for name := range c.Spec.Network.Endpoints {
			ep := c.Network.Endpoints[name]
			if slices.ContainsFunc(values, func(v string) bool { return v == name || ep.NetworkID != "" && strings.HasPrefix(ep.NetworkID, v) }) {
				return true
			}
		}
		return slices.Contains(values, c.Spec.Network.Mode)
	}, nil
}

type portSpan struct {
	first, last uint16
	proto       model.Proto
}

func portSpans(key string, values []string) (func(p model.Port) bool, error) {
	var spans []portSpan
	for _, v := range values {
		first, last, proto, err := portRange(v)
		if err != nil {
			return nil, errs.Wrap(err, "invalid filter '%s=%s'", key, v)
		}
		spans = append(spans, portSpan{first, last, proto})
	}
	return func(p model.Port) bool {
		return slices.ContainsFunc(spans, func(s portSpan) bool { return p.Proto == s.proto && p.Number >= s.first && p.Number <= s.last })
	}, nil
}

func filterPublish(_ *Engine, _ context.Context, values []string) (match, error) {
	test, err := portSpans("publish", values)
	return func(c *model.Container) bool {
		bindings := c.Network.Ports
		if !c.State.Alive() {
			bindings = c.Spec.Network.Publish
		}
		return slices.ContainsFunc(bindings, func(b model.PortBinding) bool { return test(b.Port) })
	}, err
}

func filterExpose(_ *Engine, _ context.Context, values []string) (match, error) {
	test, err := portSpans("expose", values)
	return func(c *model.Container) bool { return slices.ContainsFunc(c.Spec.Network.Exposed, test) }, err
}

// filterAncestor matches containers of the images named, and of the images made from those as far as names tell.
func filterAncestor(e *Engine, ctx context.Context, values []string) (match, error) {
	ids := map[string]bool{}
	for _, v := range values {
		if img, err := e.ports.Images.Resolve(ctx, v, ""); err == nil {
			ids[img.ID] = true
		}
	}
	return func(c *model.Container) bool { return ids[c.Image.ID] || slices.Contains(values, c.Image.Ref) }, nil
}

// pruneFilter reads the filters of a prune: until, label, label!.
func (e *Engine) pruneFilter(filters model.Filters) (filter, error) {
	var f filter
	for key, values := range filters {
		if len(values) == 0 {
			continue
		}
		switch key {
		case "until":
			if len(values) > 1 {
				return nil, invalid("more than one until filter specified")
			}
			until, err := parseUntil(values[0], e.now())
			if err != nil {
				return nil, err
			}
			f = append(f, func(c *model.Container) bool { return c.Created.Before(until) })
		case "label":
			f = append(f, func(c *model.Container) bool { return matchLabels(c.Spec.Labels, values) })
		case "label!":
			f = append(f, func(c *model.Container) bool {
				return !slices.ContainsFunc(values, func(v string) bool { return matchLabels(c.Spec.Labels, []string{v}) })
			})
		default:
			return nil, invalid("invalid filter '%s'; known are until, label, label!", key)
		}
	}
	return f, nil
}

// parseUntil reads a time: seconds since 1970, RFC 3339 in whole or in part, or a duration before now.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15Z07:00", "2006-01-02T15", "2006-01-02Z07:00", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, invalid("invalid filter 'until=%s': want a duration such as 24h, a time such as 2006-01-02T15:04:05, or seconds since 1970", text)
	}
	nanos, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	return time.Unix(seconds, nanos), nil
}
