package logs

import "sync"

// ring is the non-blocking mode: a bounded queue between the container and a driver. What does not fit is lost and
// counted.
type ring struct {
	next    Driver
	max     int64
	dropped func(int64, string)

	mu     sync.Mutex
	wake   sync.Cond
	queue  []Batch
	bytes  int64
	lost   int64
	closed bool
	err    error
	done   chan struct{}
}

func newRing(next Driver, limit int64, dropped func(int64, string)) *ring {
	r := &ring{next: next, max: limit, dropped: dropped, done: make(chan struct{})}
	r.wake.L = &r.mu
	go r.run()
	return r
}

// Log queues a copy of the batch, or loses it.
func (r *ring) Log(b Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.err
	r.err = nil
	if r.bytes+int64(len(b.Data)) > r.max && r.bytes > 0 {
		r.lost++
		if r.dropped != nil && r.lost&(r.lost-1) == 0 { // told at 1, 2, 4, 8 ...
			r.dropped(r.lost, "the buffer of the non-blocking mode is full (max-buffer-size)")
		}
		return err
	}
	b.Data = append([]byte{}, b.Data...)
	r.queue = append(r.queue, b)
	r.bytes += int64(len(b.Data))
	r.wake.Signal()
	return err
}

func (r *ring) run() {
	defer close(r.done)
	r.mu.Lock()
	for {
		for len(r.queue) == 0 {
			if r.closed {
				r.mu.Unlock()
				return
			}
			r.wake.Wait()
		}
		batch := r.queue
		r.queue = nil
		r.mu.Unlock()
		for _, b := range batch {
			err := r.next.Log(b)
			r.mu.Lock()
			r.bytes -= int64(len(b.Data))
			if err != nil {
				r.err = err
			}
			r.mu.Unlock()
		}
		r.mu.Lock()
	}
}

// Close writes what waits.
func (r *ring) Close() error {
	r.mu.Lock()
	r.closed = true
	r.wake.Signal()
	r.mu.Unlock()
	<-r.done
	return r.next.Close()
}
