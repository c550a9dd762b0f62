package convert

import (
	"github.com/moby/moby/api/types/events"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

type newEvent = events.Message

// Event is one message of GET /events in the shape of the version.
func Event(e *model.Event, v types.Version) any {
	m := events.Message{
		Type: events.Type(e.Type), Action: events.Action(e.Action), Actor: events.Actor{ID: e.ID, Attributes: e.Attrs},
		Scope: e.Scope, Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}
	if m.Actor.Attributes == nil {
		m.Actor.Attributes = map[string]string{}
	}
	if v >= 52 || e.Type != "container" && e.Type != "image" {
		return m
	}
	old := oldEvent{newEvent: m, Status: e.Action, ID: e.ID}
	if e.Type == "container" {
		old.From = e.Attrs["image"]
	}
	return old
}
