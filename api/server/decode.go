package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// maxBody bounds JSON request bodies. The largest real ones are creates with long environments.
const maxBody = 8 << 20

// decode reads the JSON body into v. Unknown fields are tolerated, as Docker does; everything else must be right. A missing
// body is an error unless optional.
func decode(w http.ResponseWriter, r *http.Request, v any, optional bool) error {
	if r.Body == nil || r.ContentLength == 0 {
		if optional {
			return nil
		}
		return errs.New(errs.Invalid, "invalid JSON: %w: the request has no body; send a JSON object with Content-Type application/json", io.EOF)
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return errs.New(errs.Invalid, "the request's body is larger than %d bytes: %w", maxBody, err)
		}
		return errs.New(errs.Invalid, "read the request's body: %w", err)
	}
	if len(data) == 0 && optional { // Docker's own client sends an empty start as text/plain
		return nil
	}
	if err := checkJSONType(r); err != nil {
		return err
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return errs.New(errs.Invalid, "invalid JSON: %w: the request's body is empty; send a JSON object", io.EOF)
	}
	return decodeJSON(data, v)
}

func checkJSONType(r *http.Request) error {
	ct := r.Header.Get("Content-Type")
	if mt, _, err := mime.ParseMediaType(ct); err != nil || mt != "application/json" {
		return errs.New(errs.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

// decodeJSON reads one JSON document, says where it is wrong, and refuses anything behind it.
func decodeJSON(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	err := dec.Decode(v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		if rest := bytes.TrimSpace(data[dec.InputOffset():]); len(rest) > 0 {
			return errs.New(errs.Invalid, "unexpected content after JSON: there is more behind the end of the document, at %s", position(data, dec.InputOffset()))
		}
		return nil
	case errors.As(err, &syntax):
		return errs.New(errs.Invalid, "invalid JSON: %w, at %s", err, position(data, syntax.Offset))
	case errors.As(err, &kind):
		return errs.New(errs.Invalid, "invalid JSON: field %q cannot be a %s, want %s, at %s", embedded.Replace(kind.Field), kind.Value, kindName(kind.Type.Kind().String()), position(data, kind.Offset))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errs.New(errs.Invalid, "invalid JSON: the document ends too early, at %s", position(data, int64(len(data))))
	}
	return errs.New(errs.Invalid, "invalid JSON: %w, near %s", err, position(data, dec.InputOffset()))
}

// embedded takes the names of Go's embedded structs out of a field's path; in JSON they are not there.
var embedded = strings.NewReplacer("HostConfig.HostConfig.Resources.", "HostConfig.", "HostConfig.HostConfig.", "HostConfig.", "HostConfig.", "HostConfig.",
	"ExecCreateRequest.", "", "NetworkingConfig.", "NetworkingConfig.", "UpdateConfig.", "", "Config.", "")

func kindName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "an integer (" + kind + ")"
	case kind == "slice", kind == "array":
		return "a list"
	case kind == "map", kind == "struct":
		return "an object"
	}
	return "a " + kind
}

// position says which byte, as line and column.
func position(data []byte, offset int64) string {
	offset = min(max(offset, 0), int64(len(data)))
	before := data[:offset]
	line := 1 + bytes.Count(before, []byte{'\n'})
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return "line " + strconv.Itoa(line) + ", column " + strconv.Itoa(max(column-1, 1))
}

// query is a request's query string with Docker's readings of booleans, numbers, times and filters.
type query struct{ url.Values }

func parseQuery(r *http.Request) (query, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, errs.New(errs.Invalid, "the query %q cannot be read: %w", r.URL.RawQuery, err)
	}
	return query{v}, nil
}

// bool reads Docker's booleans: everything but nothing, 0, no, false and none is true.
func (q query) bool(name string) bool {
	switch strings.ToLower(strings.TrimSpace(q.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// boolDefault is bool with a value for when the key is not there.
func (q query) boolDefault(name string, def bool) bool {
	if !q.Has(name) {
		return def
	}
	return q.bool(name)
}

// int reads a whole number; missing is def.
func (q query) int(name string, def int) (int, error) {
	s := q.Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "%s=%q is not a whole number", name, s)
	}
	return n, nil
}

// size reads a terminal's height and width.
func (q query) size() (h, w uint, err error) {
	for _, f := range []struct {
		name, word string
		to         *uint
	}{{"h", "height", &h}, {"w", "width", &w}} {
		n, err := strconv.ParseInt(q.Get(f.name), 10, 64)
		if err == nil && (n < 0 || n > math.MaxUint16) {
			err = strconv.ErrRange
		}
		if err != nil {
			if cause := errors.Unwrap(err); cause != nil { // without the name of Go's function
				err = cause
			}
			return 0, 0, errs.New(errs.Invalid, "invalid resize %s %q: %w; want 0 to 65535 characters", f.word, q.Get(f.name), err)
		}
		*f.to = uint(n)
	}
	return h, w, nil
}

// time reads seconds since 1970 with an optional fraction, or RFC 3339; missing, "0" and "" are the zero time.
func (q query) time(name string) (time.Time, error) {
	t, err := parseTime(q.Get(name))
	return t, errs.Wrap(err, "%s", name)
}

func parseTime(s string) (time.Time, error) {
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	secs, frac, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(secs, 10, 64); err == nil && n < math.MaxInt64/int64(1e9) && n > math.MinInt64/int64(1e9) {
		if strings.Trim(frac, "0123456789") == "" && len(frac) <= 9 {
			nanos, _ := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
			return time.Unix(n, nanos).UTC(), nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), nil
	}
	return time.Time{}, errs.New(errs.Invalid, "%q is not a time: want seconds since 1970 (1700000000.5) or RFC 3339 (2026-01-02T15:04:05Z)", s)
}

// filters reads the filters parameter in both its forms: {"key":["value"]} and the older {"key":{"value":true}}. Only the
// keys in allowed may be used; a key ending in ! is allowed with its positive.
func (q query) filters(allowed ...string) (model.Filters, error) {
	f, err := parseFilters(q.Get("filters"))
	if err != nil {
		return nil, err
	}
	for key := range f {
		if !slices.Contains(allowed, key) {
			slices.Sort(allowed)
			return nil, errs.New(errs.Invalid, "invalid filter '%s': use one of %s", key, strings.Join(allowed, ", "))
		}
	}
	return f, nil
}

func parseFilters(s string) (model.Filters, error) {
	if s == "" {
		return nil, nil
	}
	var lists map[string][]string
	if json.Unmarshal([]byte(s), &lists) == nil {
		if len(lists) == 0 {
			return nil, nil
		}
		return lists, nil
	}
	var sets map[string]map[string]bool
	if err := decodeJSON([]byte(s), &sets); err != nil {
		return nil, errs.New(errs.Invalid, "the filters %q cannot be read: want {\"key\":[\"value\"]}: %w", s, err)
	}
	out := model.Filters{}
	for key, set := range sets {
		out[key] = []string{}
		for value, on := range set {
			if on {
				out[key] = append(out[key], value)
			}
		}
		slices.Sort(out[key])
	}
	return out, nil
}
