package logrecord

import (
	"encoding/json"
	"time"
	"unicode/utf8"
)

// AppendJSON appends one entry as Docker's json-file driver writes it: {"log":...,"stream":...,"attrs":...,"time":...}
// and a newline. attrs is JSON or empty.
func AppendJSON(dst, line []byte, stderr bool, attrs []byte, at time.Time) []byte {
	dst = append(dst, `{"log":"`...)
	dst = appendEscaped(dst, line)
	if stderr {
		dst = append(dst, `","stream":"stderr"`...)
	} else {
		dst = append(dst, `","stream":"stdout"`...)
	}
	if len(attrs) > 0 {
		dst = append(dst, `,"attrs":`...)
		dst = append(dst, attrs...)
	}
	dst = append(dst, `,"time":"`...)
	dst = at.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, "\"}\n"...)
}

const hex = "0123456789abcdef"

// plain marks the bytes that need no escape: those that Docker's encoder leaves alone.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return
}()

func appendEscaped(dst, s []byte) []byte {
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(append(dst, s[from:i]...), `\ufffd`...)
			from = i + n
		case r == 0x2028 || r == 0x2029:
			dst = append(append(dst, s[from:i]...), `\u202`...)
			dst = append(dst, hex[r&15])
			from = i + n
		}
		i += n
	}
	return append(dst, s[from:]...)
}

// Entry is one line of a json-file.
type Entry struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
}

// GoesOn says whether a line of a json-file is a piece of a longer one. The format has no mark for it: what lacks its
// newline and is as long as a piece goes on, and what is shorter is where a stream ended.
func (e *Entry) GoesOn() bool {
	return len(e.Log) > Split-4 && e.Log[len(e.Log)-1] != '\n'
}

// ParseJSON reads one line of a json-file.
func ParseJSON(line []byte) (Entry, error) {
	var e Entry
	err := json.Unmarshal(line, &e)
	return e, err
}
