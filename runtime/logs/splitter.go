package logs

import (
	"bytes"

	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// Splitter turns one stream's bytes into batches of whole lines. It holds back an unfinished line until the rest comes,
// or until it is longer than logrecord.Split. The zero value is ready.
type Splitter struct{ pend []byte }

// keep is how much memory for unfinished lines a stream may hold on to.
const keep = 1 << 10

// Feed calls emit for what is complete. The data given to emit is valid during the call; it ends with a newline unless it is
// partial or comes from Flush.
func (s *Splitter) Feed(data []byte, emit func(data []byte, partial bool)) {
	for len(s.pend) > 0 && len(data) > 0 {
		n := bytes.IndexByte(data, '\n') + 1
		whole := n > 0
		if !whole {
			n = len(data)
		}
		if over := len(s.pend) + n - logrecord.Split - 1; over > 0 {
			n, whole = n-over, false
		}
		s.pend = append(s.pend, data[:n]...)
		data = data[n:]
		if whole {
			emit(s.pend, false)
			s.empty()
		} else if len(s.pend) > logrecord.Split {
			s.cut(emit)
		}
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	if end > 0 {
		emit(data[:end], false)
	}
	for data = data[end:]; len(data) > logrecord.Split; {
		n := logrecord.Cut(data)
		emit(data[:n], true)
		data = data[n:]
	}
	s.pend = append(s.pend, data...)
}

// cut emits the first piece of a line that became too long.
func (s *Splitter) cut(emit func([]byte, bool)) {
	n := logrecord.Cut(s.pend)
	emit(s.pend[:n], true)
	s.pend = s.pend[:copy(s.pend, s.pend[n:])]
}

func (s *Splitter) empty() {
	s.pend = s.pend[:0]
	if cap(s.pend) > keep {
		s.pend = nil
	}
}

// Unfinished is what is held back: feed it to a new Splitter first.
func (s *Splitter) Unfinished() []byte { return s.pend }

// Flush emits an unfinished line at the end of the stream, as it is: nothing goes on there, so it is not partial.
func (s *Splitter) Flush(emit func(data []byte, partial bool)) {
	if len(s.pend) > 0 {
		emit(s.pend, false)
		s.pend = nil
	}
}
