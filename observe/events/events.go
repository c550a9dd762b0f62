// Package events is the node's event bus: rooms publish, API clients subscribe. It keeps the last events for those who
// ask what happened before. It must not decide anything and never blocks a publisher.
package events

import (
	"sync"
	"time"

	"github.com/shoalhq/shoal/model"
)

// Kept is how many past events the bus remembers.
const Kept = 1024

// Bus carries events from publishers to subscribers. Make it with New.
type Bus struct {
	mu   sync.Mutex
	past []model.Event // ring
	next int           // where the next event goes in the ring
	subs map[*Subscription]struct{}
	last time.Time
	now  func() time.Time
}

// New makes a bus that stamps events with now.
func New(now func() time.Time) *Bus {
	return &Bus{subs: map[*Subscription]struct{}{}, now: now}
}

// Publish stamps the event and hands it to every subscriber. Stamps never repeat, so that "since" of the last event
// seen misses nothing and repeats nothing.
func (b *Bus) Publish(e model.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Time = b.now().UTC()
	if !e.Time.After(b.last) {
		e.Time = b.last.Add(1)
	}
	b.last = e.Time
	if e.Scope == "" {
		e.Scope = "local"
	}
	if len(b.past) < Kept {
		b.past = append(b.past, e)
	} else {
		b.past[b.next] = e
	}
	b.next = (b.next + 1) % Kept
	for s := range b.subs {
		s.push(e)
	}
}

// Subscribe returns the kept events of [since, now] (all kept ones are skipped when since is zero) and a subscription to
// those after, without gap or repetition between the two.
func (b *Bus) Subscribe(since time.Time) ([]model.Event, *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &Subscription{bus: b, ready: make(chan struct{}, 1)}
	b.subs[s] = struct{}{}
	if since.IsZero() {
		return nil, s
	}
	var past []model.Event
	for i := range b.past {
		at := i
		if len(b.past) == Kept {
			at = (b.next + i) % Kept
		}
		if e := b.past[at]; !e.Time.Before(since) {
			past = append(past, e)
		}
	}
	return past, s
}

// Subscription is one subscriber's queue.
type Subscription struct {
	bus   *Bus
	ready chan struct{}

	mu    sync.Mutex
	queue []model.Event
	lost  int
}

// queueLimit bounds what a subscriber that does not read may hold.
const queueLimit = 16 * Kept

func (s *Subscription) push(e model.Event) {
	s.mu.Lock()
	if len(s.queue) >= queueLimit {
		s.lost++
	} else {
		s.queue = append(s.queue, e)
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Ready receives when Take has something.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Take empties the queue; lost counts events dropped since the last call because the subscriber was too slow.
func (s *Subscription) Take() (events []model.Event, lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, lost = s.queue, s.lost
	s.queue, s.lost = nil, 0
	return events, lost
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs, s)
	s.bus.mu.Unlock()
}
