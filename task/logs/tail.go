package logs

import (
	"bytes"
	"io"
	"os"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// counter counts lines from the end of the log. Pieces of one long line count once: by the piece that ends it.
type counter struct {
	opts *model.LogOptions
	want int
	have int
}

// tailStart walks a file from its end until enough wanted lines lie behind the offset that it returns, with all pieces of the
// first of them, or until the beginning.
func (c *counter) tailStart(driver string, f *os.File, size int64) (offset int64, err error) {
	if c.have >= c.want {
		return size, nil
	}
	if driver == logopts.JSONFile {
		return c.jsonStart(f, size)
	}
	return c.localStart(f, size)
}

func (c *counter) localStart(f *os.File, end int64) (int64, error) {
	var tail [logrecord.TrailerSize]byte
	var buf []byte
	for end > 0 {
		if end < logrecord.HeaderSize+logrecord.TrailerSize {
			return 0, logrecord.ErrDamaged
		}
		if _, err := f.ReadAt(tail[:], end-logrecord.TrailerSize); err != nil {
			return 0, err
		}
		n, err := logrecord.ParseTrailer(tail[:])
		if err != nil || int64(n) > end {
			return 0, logrecord.ErrDamaged
		}
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := f.ReadAt(buf, end-int64(n)); err != nil {
			return 0, err
		}
		h, err := logrecord.ParseHeader(buf)
		if err != nil {
			return 0, err
		}
		if c.have >= c.want && !h.Partial {
			break
		}
		end -= int64(n)
		e := model.LogEntry{Stderr: h.Stderr}
		if want, _ := c.pick(h, e.Stderr); want {
			data := buf[logrecord.HeaderSize : n-logrecord.TrailerSize]
			c.have += bytes.Count(data, []byte{'\n'})
			if !h.Partial && len(data) > 0 && data[len(data)-1] != '\n' { // the stream ended there
				c.have++
			}
		}
	}
	return end, nil
}

func (c *counter) pick(h logrecord.Header, stderr bool) (want, past bool) {
	return pick(c.opts, stderr, unixNano(h.Time))
}

func (c *counter) jsonStart(f *os.File, end int64) (int64, error) {
	const chunk = 64 << 10
	var rest []byte // the beginning of a line whose head lies before
	for end > 0 {
		n := min(end, chunk)
		buf := make([]byte, n, n+int64(len(rest)))
		if _, err := f.ReadAt(buf, end-n); err != nil && err != io.EOF {
			return 0, err
		}
		buf = append(buf, rest...)
		for len(buf) > 0 {
			body := bytes.TrimSuffix(buf, []byte{'\n'})
			i := bytes.LastIndexByte(body, '\n')
			if i < 0 && end-n > 0 {
				break // its head lies in the chunk before
			}
			line := buf[i+1:]
			e, err := parseJSON(line)
			if c.have >= c.want && (err != nil || !e.Partial) {
				return end - n + int64(len(buf)), nil
			}
			if err == nil && !e.Partial {
				if want, _ := pick(c.opts, e.Stderr, e.Time); want {
					c.have++
				}
			}
			buf = buf[:i+1]
		}
		rest, end = buf, end-n
	}
	return end, nil
}
