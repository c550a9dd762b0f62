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

// tailStart walks a file from its end until enough wanted lines lie behind the offset that it returns, or the beginning.
// skip is how many of the wanted lines behind the offset are too many.
func (c *counter) tailStart(driver string, f *os.File, size int64) (offset int64, err error) {
	if driver == logopts.JSONFile {
		return c.jsonStart(f, size)
	}
	return c.localStart(f, size)
}

func (c *counter) localStart(f *os.File, end int64) (int64, error) {
	var tail [logrecord.TrailerSize]byte
	var buf []byte
	for end > 0 && c.have < c.want {
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
		end -= int64(n)
		e := model.LogEntry{Stderr: h.Stderr}
		if want, _ := c.pick(h, e.Stderr); want {
			c.have += bytes.Count(buf[logrecord.HeaderSize:n-logrecord.TrailerSize], []byte{'\n'})
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
	for end > 0 && c.have < c.want {
		n := min(end, chunk)
		buf := make([]byte, n, n+int64(len(rest)))
		if _, err := f.ReadAt(buf, end-n); err != nil && err != io.EOF {
			return 0, err
		}
		buf = append(buf, rest...)
		for c.have < c.want {
			body := bytes.TrimSuffix(buf, []byte{'\n'})
			i := bytes.LastIndexByte(body, '\n')
			if i < 0 && end-n > 0 {
				break // its head lies in the chunk before
			}
			line := buf[i+1:]
			if e, err := parseJSON(line); err == nil && !e.Partial {
				if want, _ := pick(c.opts, e.Stderr, e.Time); want {
					c.have++
				}
			}
			buf = buf[:i+1]
			if i < 0 {
				break
			}
		}
		if c.have >= c.want {
			return end - n + int64(len(buf)), nil
		}
		rest, end = buf, end-n
	}
	return end, nil
}
