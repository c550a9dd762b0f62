// Package progress shows how far long work has come: the engine's progress messages (pull, push, load, import) and the
// bytes of a stream that this process copies. On a terminal lines are redrawn in place, elsewhere each change of state is
// one line and counts are left out. It must not talk to an engine.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/shoalhq/shoal/lib/errs"
)

// Screen is where progress goes.
type Screen struct {
	Out   io.Writer
	Width int // columns of the terminal; 0: not a terminal
	// Size, when not nil, gives rows and columns as they are now: people make windows narrower while something is pulled.
	Size func() (rows, columns int)
}

// now is the size to draw for.
func (s Screen) now() (rows, columns int) {
	if s.Size != nil {
		if r, c := s.Size(); c > 0 {
			return r, c
		}
	}
	return 0, s.Width
}

// Messages shows the JSON messages of r until it ends, and gives aux, if not nil, every out-of-band value. The error is
// that of the work, if one is reported, or of reading.
func (s Screen) Messages(r io.Reader, aux func(json.RawMessage)) error {
	dec := json.NewDecoder(r)
	lines := &lines{screen: s, index: map[string]int{}}
	for {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return errs.Wrap(err, "read the engine's progress messages")
		}
		if m.Error != nil {
			return errors.New(m.Error.Message)
		}
		if m.OldError != "" {
			return errors.New(m.OldError)
		}
		if m.Aux != nil {
			if aux != nil {
				aux(*m.Aux)
			}
			continue
		}
		lines.show(&m.Message)
	}
}

type message struct {
	jsonstream.Message
	OldError string `json:"error"` // engines before API 1.24 know only this
}

// lines remembers which line of the terminal belongs to which layer.
type lines struct {
	screen Screen
	index  map[string]int
	count  int
}

func (l *lines) show(m *jsonstream.Message) {
	w := l.screen.Out
	if m.Stream != "" {
		fmt.Fprint(w, m.Stream)
		return
	}
	text := clean(m.Status)
	if m.ID != "" {
		text = clean(m.ID) + ": " + text
	}
	if l.screen.Width == 0 {
		// Counting is for eyes; a log keeps the steps.
		if m.Progress == nil || m.Progress.Current == 0 && m.Progress.Total == 0 {
			fmt.Fprintln(w, text)
		}
		return
	}
	rows, columns := l.screen.now()
	if m.Progress != nil {
		if bar := drawBar(m.Progress, columns); bar != "" {
			text += " " + bar
		}
	}
	if m.ID == "" {
		// A line of its own ends the block that is redrawn.
		fmt.Fprintln(w, text)
		l.index, l.count = map[string]int{}, 0
		return
	}
	at, known := l.index[m.ID]
	if !known {
		l.index[m.ID] = l.count
		l.count++
		fmt.Fprintln(w, cut(text, columns))
		return
	}
	up := l.count - at
	if rows > 0 && up >= rows {
		return // it has left the screen; what is there now belongs to another
	}
	fmt.Fprintf(w, "\x1b[%dA\x1b[2K\r%s\r\x1b[%dB", up, cut(text, columns), up)
}

// drawBar draws [====>    ]  1.2MB/3.4MB.
func drawBar(p *jsonstream.Progress, columns int) string {
	if p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	if p.Total <= 0 {
		if p.Units != "" {
			return fmt.Sprintf("%8d %s", p.Current, clean(p.Units))
		}
		return fmt.Sprintf("%8v", units.HumanSize(float64(p.Current)))
	}
	graph := ""
	if columns > 110 {
		done := int(min(max(p.Current, 0)*50/p.Total, 50))
		graph = "[" + strings.Repeat("=", done) + ">" + strings.Repeat(" ", 50-done) + "] "
	}
	if p.HideCounts {
		return graph
	}
	if p.Units != "" {
		return fmt.Sprintf("%s%8d/%d %s", graph, p.Current, p.Total, clean(p.Units))
	}
	return fmt.Sprintf("%s%8v/%v", graph, units.HumanSize(float64(p.Current)), units.HumanSize(float64(p.Total)))
}

// clean takes control characters out: the text comes from a registry or an engine that need not be friendly.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

func cut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width])
	}
	return s
}
