package logs

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// format reads one file format. next gives all entries of the next record; io.EOF when the file has no further whole
// record (yet), and the reader can be used again when it has grown.
type format interface {
	next(emit func(model.LogEntry) error) error
}

func newFormat(driver string, f io.Reader) format {
	if driver == logopts.JSONFile {
		return &jsonFormat{r: bufio.NewReaderSize(f, 64<<10)}
	}
	return &localFormat{r: bufio.NewReaderSize(f, 64<<10)}
}

// localFormat reads logrecord's own format.
type localFormat struct {
	r    *bufio.Reader
	part []byte // of a record whose rest is not written yet
	want int
	// filter, when not nil, says by a record's head whether its data is wanted.
	filter func(h logrecord.Header) bool
}

func (l *localFormat) next(emit func(model.LogEntry) error) error {
	if err := l.fill(logrecord.HeaderSize); err != nil {
		return err
	}
	h, err := logrecord.ParseHeader(l.part)
	if err != nil {
		return err
	}
	if err := l.fill(h.Size); err != nil {
		return err
	}
	data := l.part[logrecord.HeaderSize : h.Size-logrecord.TrailerSize]
	if l.filter == nil || l.filter(h) {
		err = logrecord.Pieces(data, h.Partial, func(piece []byte, partial bool) error {
			return emit(model.LogEntry{Time: time.Unix(0, h.Time).UTC(), Stderr: h.Stderr, Partial: partial, Data: piece})
		})
	}
	l.part = l.part[:0]
	return err
}

// fill reads until part has n bytes.
func (l *localFormat) fill(n int) error {
	have := len(l.part)
	if have >= n {
		return nil
	}
	if cap(l.part) < n {
		l.part = append(make([]byte, 0, n), l.part...)
	}
	got, err := io.ReadFull(l.r, l.part[have:n])
	l.part = l.part[:have+got]
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return err
}

// jsonFormat reads Docker's json-file.
type jsonFormat struct {
	r    *bufio.Reader
	line []byte
}

func (j *jsonFormat) next(emit func(model.LogEntry) error) error {
	part, err := j.r.ReadSlice('\n')
	j.line = append(j.line, part...)
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil // the next call goes on
	}
	if err != nil {
		return err
	}
	line := j.line
	j.line = j.line[:0]
	e, perr := parseJSON(line)
	if perr != nil {
		return nil // a torn line, for example of a full disk: the others are good
	}
	return emit(e)
}

func parseJSON(line []byte) (model.LogEntry, error) {
	e, err := logrecord.ParseJSON(bytes.TrimLeft(line, "\x00"))
	if err != nil {
		return model.LogEntry{}, err
	}
	return model.LogEntry{Time: e.Time, Stderr: e.Stream == "stderr", Data: []byte(e.Log), Attrs: e.Attrs, Partial: e.GoesOn()}, nil
}
