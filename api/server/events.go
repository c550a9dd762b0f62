package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoalhq/shoal/api/access"
	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/events"
)

var eventFilters = []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
	"service", "type", "volume"}

// events streams what happens: first what is remembered since "since", then live until "until".
func (s *Server) events(w http.ResponseWriter, r *http.Request, v types.Version) error {
	if s.b.Events == nil {
		return missing("events")
	}
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	now := s.clock.Now()
	since, err := eventTime(q, "since", now)
	if err != nil {
		return err
	}
	until, err := eventTime(q, "until", now)
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return errs.New(errs.Invalid, "since %s is later than until %s; swap them", since.Format(time.RFC3339Nano), until.Format(time.RFC3339Nano))
	}
	f, err := q.filters(eventFilters...)
	if err != nil {
		return err
	}
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	if !until.IsZero() && !until.After(now) {
		cancel() // only the past is wanted
	} else if !until.IsZero() {
		stop := s.clock.AfterFunc(until.Sub(now), cancel)
		defer stop()
	}
	past, sub := s.b.Events.Subscribe(since)
	defer sub.Close()
	mediaType, sequence := eventType(r, v)
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(http.StatusOK)
	out := &eventWriter{w: w, v: v, filters: f, until: until, sequence: sequence, scope: s.cfg.Guard.Scope}
	if err := out.write(past); err != nil {
		return err
	}
	flush(w)
	for {
		select {
		case <-sub.Ready():
			list, lost := sub.Take()
			if lost > 0 {
				s.log.Warn("a client reads events too slowly and missed some", "missed", lost)
			}
			if err := out.write(list); err != nil {
				return err
			}
			flush(w)
		case <-ctx.Done():
			return nil
		}
	}
}

// eventTime reads a time; a duration such as 10m means that long ago.
func eventTime(q query, name string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(q.Get(name)); err == nil && q.Get(name) != "0" {
		return now.Add(-d), nil
	}
	return q.time(name)
}

// eventType chooses the form of the stream by what the client accepts.
func eventType(r *http.Request, v types.Version) (mediaType string, sequence bool) {
	if v >= 52 {
		for accept := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
			accept, _, _ = strings.Cut(strings.TrimSpace(accept), ";")
			switch accept {
			case "application/json-seq":
				return accept, true
			case "application/x-ndjson", "application/jsonl":
				return accept, false
			}
		}
	}
	return "application/json", false
}

type eventWriter struct {
	w        io.Writer
	v        types.Version
	filters  model.Filters
	until    time.Time
	sequence bool // RFC 7464: each message starts with a record separator
	scope    *access.Scope
}

func (o *eventWriter) write(list []model.Event) error {
	for i := range list {
		e := &list[i]
		if o.scope != nil {
			seen, ok := o.scope.Event(*e)
			if !ok {
				continue
			}
			e = &seen
		}
		if !matchEvent(e, o.filters) || !o.until.IsZero() && e.Time.After(o.until) {
			continue
		}
		data, err := json.Marshal(convert.Event(e, o.v))
		if err != nil {
			return err
		}
		if o.sequence {
			data = append([]byte{0x1e}, data...)
		}
		if _, err := o.w.Write(append(data, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// matchEvent applies the filters: each key must have a value that fits.
func matchEvent(e *model.Event, f model.Filters) bool {
	for key, values := range f {
		if len(values) == 0 {
			continue
		}
		fits := false
		for _, want := range values {
			fits = fits || key != "label" && fitsEvent(e, key, want)
		}
		if key == "label" { // all labels must be there
			fits = true
			for _, want := range values {
				name, value, has := strings.Cut(want, "=")
				got, there := e.Attrs[name]
				fits = fits && there && (!has || got == value)
			}
		}
		if !fits {
			return false
		}
	}
	return true
}

func fitsEvent(e *model.Event, key, want string) bool {
	switch key {
	case "type":
		return e.Type == want
	case "scope":
		return e.Scope == want
	case "event":
		if strings.Contains(want, ": ") {
			return e.Action == want
		}
		action, _, _ := strings.Cut(e.Action, ":")
		return action == want || e.Action == want
	case "container":
		return e.Type == "container" && isObject(e.ID, e.Attrs["name"], want)
	case "image":
		ref := e.Attrs["image"]
		if e.Type == "image" {
			ref = e.Attrs["name"]
			if isObject(e.ID, "", want) || e.ID == want {
				return true
			}
		}
		return ref != "" && (ref == want || repository(ref) == want || e.Type == "image" && repository(e.ID) == want)
	case "daemon", "network", "node", "plugin", "service":
		return e.Type == key && isObject(e.ID, e.Attrs["name"], want)
	case "volume", "config", "secret":
		return e.Type == key && (e.ID == want || e.Attrs["name"] == want)
	}
	return false
}

func isObject(id, name, want string) bool {
	return want != "" && (id == want || name == want || len(want) >= 2 && strings.HasPrefix(id, want) || strings.HasPrefix(id, "sha256:"+want))
}

// repository is a reference without tag and digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

// pruned tells of what a prune gave back.
func (s *Server) pruned(kind string, reclaimed int64) {
	if s.b.Events != nil {
		s.b.Events.Publish(model.Event{Type: kind, Action: "prune", Attrs: map[string]string{"reclaimed": strconv.FormatInt(max(reclaimed, 0), 10)}})
	}
}

// lifeOf tells when a container starts; it is closed when the container is removed or ctx ends.
func (s *Server) lifeOf(ctx context.Context, id string, sub *events.Subscription) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		for {
			select {
			case <-sub.Ready():
			case <-ctx.Done():
				return
			}
			list, _ := sub.Take()
			for _, e := range list {
				if e.Type != "container" || e.ID != id {
					continue
				}
				switch e.Action {
				case "start":
					select {
					case out <- struct{}{}:
					default:
					}
				case "destroy":
					return
				}
			}
		}
	}()
	return out
}
