package server

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// progress writes the stream of JSON messages that loads, pulls and pushes answer with. Nothing is sent until there is
// something to say, so that an early error is still an ordinary answer; a late one is the stream's last message. Progress of
// one layer is sent at most ten times a second.
type progress struct {
	w     http.ResponseWriter
	quiet bool

	mu   sync.Mutex
	sent map[string]time.Time // by layer
}

// progressEvery bounds how often one layer's progress is sent.
const progressEvery = 100 * time.Millisecond

// oldMessage adds the texts that old clients print.
type oldMessage struct {
	jsonstream.Message
	ProgressText string `json:"progress,omitempty"`
	ErrorText    string `json:"error,omitempty"`
}

func newProgress(w http.ResponseWriter, quiet bool) *progress {
	return &progress{w: w, quiet: quiet, sent: map[string]time.Time{}}
}

func (p *progress) message(m any) {
	data, err := json.Marshal(m)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin()
	p.w.Write(append(data, '\r', '\n'))
	flush(p.w)
}

func (p *progress) begin() {
	if w, ok := p.w.(*response); ok && !w.begun() {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
	}
}

// load shows what a load does: the sentence for a finished image, and each layer's progress unless quiet.
func (p *progress) load(i model.ImageProgress) {
	if i.ID == "" {
		p.message(oldMessage{Message: jsonstream.Message{Stream: i.Action + "\n"}})
		return
	}
	if !p.quiet {
		p.layer(i)
	}
}

// layer shows one layer's progress.
func (p *progress) layer(i model.ImageProgress) {
	if i.Pushed != nil {
		data, err := json.Marshal(i.Pushed) // the names of its fields are the API's
		if err == nil {
			p.message(oldMessage{Message: jsonstream.Message{Aux: (*json.RawMessage)(&data)}})
		}
		return
	}
	m := oldMessage{Message: jsonstream.Message{ID: i.ID, Status: i.Action}}
	if i.Current > 0 || i.Total > 0 {
		now := time.Now()
		p.mu.Lock()
		soon := now.Sub(p.sent[i.ID]) < progressEvery && (i.Total == 0 || i.Current < i.Total)
		if !soon {
			p.sent[i.ID] = now
		}
		p.mu.Unlock()
		if soon {
			return
		}
		m.Progress = &jsonstream.Progress{Current: i.Current, Total: i.Total}
		m.ProgressText = units.HumanSizeWithPrecision(float64(i.Current), 4)
		if i.Total > 0 {
			m.ProgressText += "/" + units.HumanSizeWithPrecision(float64(i.Total), 4)
		}
	}
	p.message(m)
}

// end ends the stream, with the error if there was one.
func (p *progress) end(err error) error {
	if err == nil {
		p.mu.Lock()
		p.begin()
		p.mu.Unlock()
		return nil
	}
	if w, ok := p.w.(*response); ok && !w.begun() {
		return err
	}
	p.message(oldMessage{Message: jsonstream.Message{Error: &jsonstream.Error{Code: errs.HTTPStatus(err), Message: err.Error()}}, ErrorText: err.Error()})
	return nil
}
