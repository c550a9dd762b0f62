package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// statsEvery is the pace that clients expect of the stream.
const statsEvery = time.Second

func (s *Server) stats(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	stream := q.boolDefault("stream", true)
	oneShot := v >= 41 && q.bool("one-shot")
	if stream && oneShot {
		return errs.New(errs.Invalid, "one-shot=true needs stream=false: a stream has more than one shot")
	}
	view, err := s.b.Containers.Inspect(r.Context(), r.PathValue("name"), false)
	if err != nil {
		return err
	}
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	if !stream {
		return s.statsOnce(ctx, w, &view, oneShot, v)
	}
	// Subscribed before the first reading, so that no start or end is missed.
	var changed <-chan struct{}
	if s.b.Events != nil {
		_, sub := s.b.Events.Subscribe(time.Time{})
		defer sub.Close()
		changed = s.lifeOf(ctx, view.ID, sub)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	enc := json.NewEncoder(w)
	var before *model.Stats
	for {
		st, err := s.b.Streams.Stats(ctx, view.ID)
		switch {
		case err == nil:
			if err := enc.Encode(convert.Stats(view.ID, view.Name, &st, before, v)); err != nil {
				return err
			}
			before = &st
		case errs.Is(err, errs.NotFound), ctx.Err() != nil:
			return nil
		default: // it does not run: say so once, and go on when it starts
			if err := enc.Encode(convert.Stats(view.ID, view.Name, &model.Stats{}, nil, v)); err != nil {
				return err
			}
			before = nil
		}
		flush(w)
		if before == nil {
			if changed == nil {
				return nil
			}
			select {
			case _, ok := <-changed:
				if !ok {
					return nil
				}
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if !s.sleep(ctx, statsEvery) {
			return nil
		}
	}
}

// statsOnce gives one reading; unless one-shot, a second after another, so that rates can be worked out.
func (s *Server) statsOnce(ctx context.Context, w http.ResponseWriter, view *model.ContainerView, oneShot bool, v types.Version) error {
	st, err := s.b.Streams.Stats(ctx, view.ID)
	if errs.Is(err, errs.Conflict) { // it does not run
		return writeJSON(w, http.StatusOK, convert.Stats(view.ID, view.Name, &model.Stats{}, nil, v))
	}
	if err != nil {
		return err
	}
	if oneShot {
		return writeJSON(w, http.StatusOK, convert.Stats(view.ID, view.Name, &st, nil, v))
	}
	if !s.sleep(ctx, statsEvery) {
		return ctx.Err()
	}
	now, err := s.b.Streams.Stats(ctx, view.ID)
	if err != nil { // it ended meanwhile
		return writeJSON(w, http.StatusOK, convert.Stats(view.ID, view.Name, &model.Stats{}, nil, v))
	}
	return writeJSON(w, http.StatusOK, convert.Stats(view.ID, view.Name, &now, &st, v))
}

// sleep waits and says whether ctx lasted.
func (s *Server) sleep(ctx context.Context, d time.Duration) bool {
	woke := make(chan struct{})
	stop := s.clock.AfterFunc(d, func() { close(woke) })
	select {
	case <-woke:
		return true
	case <-ctx.Done():
		stop()
		return false
	}
}
