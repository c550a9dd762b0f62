package logs

import (
	"encoding/json"
	"maps"

	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// jsonFile is Docker's json-file.
type jsonFile struct {
	r     *rotating
	attrs []byte
	buf   []byte
}

func openJSON(target spec.LogTarget, opts logopts.Options, compressor []string) (*jsonFile, error) {
	attrs, err := attributes(target, opts)
	if err != nil {
		return nil, err
	}
	j := &jsonFile{}
	if len(attrs) > 0 {
		if j.attrs, err = json.Marshal(attrs); err != nil {
			return nil, err
		}
	}
	if j.r, err = openRotating(target.Path, opts.File, compressor); err != nil {
		return nil, err
	}
	return j, j.mend()
}

// mend ends a line that a crash of the machine left torn, so that the next one is not torn with it.
func (j *jsonFile) mend() error {
	if j.r.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := j.r.f.ReadAt(last[:], j.r.size-1); err != nil || last[0] == '\n' {
		return err
	}
	return j.r.writev([][]byte{{'\n'}})
}

// attributes are what the options labels, env and tag add to every entry.
func attributes(target spec.LogTarget, opts logopts.Options) (map[string]string, error) {
	attrs := map[string]string{}
	maps.Copy(attrs, target.Info.Labels)
	maps.Copy(attrs, target.Info.Env)
	if target.Options["tag"] != "" {
		tag, err := logopts.Tag(opts.Tag, &target.Info)
		if err != nil {
			return nil, err
		}
		attrs["tag"] = tag
	}
	return attrs, nil
}

// flushAt is how much JSON is gathered for one write.
const flushAt = 64 << 10

// Log writes one JSON object per line.
func (j *jsonFile) Log(b Batch) error {
	j.buf = j.buf[:0]
	err := logrecord.Pieces(b.Data, b.Partial, func(piece []byte, partial bool) error {
		start := len(j.buf)
		j.buf = logrecord.AppendJSON(j.buf, piece, b.Stderr, j.attrs, b.Time)
		if j.r.exceeded(len(j.buf)) && start > 0 { // what is gathered still fits: write it, begin a file with this line
			line := append([]byte{}, j.buf[start:]...)
			if err := j.write(start); err != nil {
				return err
			}
			j.buf = append(j.buf[:0], line...)
		}
		if len(j.buf) >= flushAt {
			return j.write(len(j.buf))
		}
		return nil
	})
	if err == nil && len(j.buf) > 0 {
		err = j.write(len(j.buf))
	}
	if cap(j.buf) > 4<<10 && len(b.Data) < 1<<10 {
		j.buf = nil // a flood has ended: give its buffer back
	}
	return err
}

func (j *jsonFile) write(n int) error {
	if j.r.full(n) {
		if err := j.r.rotate(); err != nil {
			return err
		}
	}
	err := j.r.writev([][]byte{j.buf[:n]})
	j.buf = j.buf[:0]
	return err
}

// Compresses says whether a rotated file is being compressed.
func (j *jsonFile) Compresses() bool { return j.r.busy.Load() }

// Close ends the log.
func (j *jsonFile) Close() error { return j.r.close() }
