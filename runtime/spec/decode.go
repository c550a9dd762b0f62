package spec

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decode fills *into with what data says, as json.Unmarshal does, or says that it did not: then *into is to be thrown away
// and json.Unmarshal to be asked, for the value or for the words of its error.
//
// It is here for the first decoding of a process's life, which is every decoding that the command does: encoding/json
// prepares encoders and decoders of every type that the configuration could mention, Windows' and Solaris' too, in 0.5 ms,
// a tenth of a container's start. This looks at the types that are mentioned, and takes a seventh of that. Whatever is not
// plain (keys in another case or given twice, escapes, fractions, embedded structs, mistakes) is left to encoding/json.
func decode(data []byte, into any) (ok bool) {
	d := decoder{data: data, fields: map[reflect.Type][]field{}}
	return d.value(reflect.ValueOf(into).Elem()) && d.end()
}

type decoder struct {
	data   []byte
	at     int
	depth  int
	fields map[reflect.Type][]field
}

// field is one that a key can name.
type field struct {
	key   string
	index int
}

// maxPlainDepth bounds the recursion on what is skipped; no configuration comes near it.
const maxPlainDepth = 64

// space skips white space and gives the byte that follows, 0 at the end.
func (d *decoder) space() byte {
	for ; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (d *decoder) end() bool { return d.space() == 0 && d.at == len(d.data) }

// take skips white space and then c, which must follow.
func (d *decoder) take(c byte) bool {
	if d.space() != c {
		return false
	}
	d.at++
	return true
}

func (d *decoder) word(w string) bool {
	if !strings.HasPrefix(string(d.data[d.at:min(len(d.data), d.at+len(w))]), w) {
		return false
	}
	d.at += len(w)
	return true
}

// value decodes into v, which is settable.
func (d *decoder) value(v reflect.Value) bool {
	if d.depth++; d.depth > maxPlainDepth {
		return false
	}
	ok := d.plain(v)
	d.depth--
	return ok
}

func (d *decoder) plain(v reflect.Value) bool {
	first := d.space()
	if first == 'n' {
		switch v.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			v.SetZero()
		}
		return d.word("null")
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem())
	case reflect.Struct:
		return d.object(v)
	case reflect.Map:
		return d.table(v)
	case reflect.Slice:
		return d.list(v)
	case reflect.String:
		s, ok := d.text()
		v.SetString(s)
		return ok
	case reflect.Bool:
		v.SetBool(first == 't')
		return d.word("true") || d.word("false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(d.digits(), 10, v.Type().Bits())
		v.SetInt(n)
		return err == nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(d.digits(), 10, v.Type().Bits())
		v.SetUint(n)
		return err == nil
	}
	return false
}

// digits takes an integer; "" stands for anything else.
func (d *decoder) digits() string {
	start := d.at
	if d.at < len(d.data) && d.data[d.at] == '-' {
		d.at++
	}
	first := d.at
	for d.at < len(d.data) && d.data[d.at] >= '0' && d.data[d.at] <= '9' {
		d.at++
	}
	if d.at > first+1 && d.data[first] == '0' || d.at < len(d.data) && strings.IndexByte(".eE", d.data[d.at]) >= 0 {
		return ""
	}
	return string(d.data[start:d.at])
}

// text takes a string without escapes.
func (d *decoder) text() (string, bool) {
	if !d.take('"') {
		return "", false
	}
	start, ascii := d.at, true
	for ; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; {
		case c == '"':
			s := string(d.data[start:d.at])
			d.at++
			return s, ascii || utf8.ValidString(s)
		case c == '\\' || c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// members calls each with every key of an object; it decodes the value.
func (d *decoder) members(each func(key string) bool) bool {
	if !d.take('{') {
		return false
	}
	if d.space() == '}' {
		return d.take('}')
	}
	for {
		key, ok := d.text()
		if !ok || !d.take(':') || !each(key) {
			return false
		}
		if d.space() != ',' {
			return d.take('}')
		}
		d.at++
	}
}

func (d *decoder) object(v reflect.Value) bool {
	fields, ok := d.fieldsOf(v.Type())
	if !ok {
		return false
	}
	var seen uint64
	return d.members(func(key string) bool {
		for i, f := range fields {
			if f.key == key {
				again := seen&(1<<i) != 0
				seen |= 1 << i
				return !again && d.value(v.Field(f.index))
			}
		}
		for _, f := range fields {
			if strings.EqualFold(f.key, key) {
				return false
			}
		}
		return d.skip()
	})
}

// fieldsOf gives the fields of a struct that keys can name.
func (d *decoder) fieldsOf(t reflect.Type) ([]field, bool) {
	if fields, ok := d.fields[t]; ok {
		return fields, true
	}
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || key == "" || strings.Contains(options, "string") {
			return nil, false
		}
		if key != "-" {
			fields = append(fields, field{key, i})
		}
	}
	if len(fields) > 64 { // the bits of object
		return nil, false
	}
	d.fields[t] = fields
	return fields, true
}

func (d *decoder) table(v reflect.Value) bool {
	t := v.Type()
	if t.Key().Kind() != reflect.String {
		return false
	}
	v.Set(reflect.MakeMap(t))
	return d.members(func(key string) bool {
		e := reflect.New(t.Elem()).Elem()
		ok := d.value(e)
		v.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), e)
		return ok
	})
}

func (d *decoder) list(v reflect.Value) bool {
	if v.Type().Elem().Kind() == reflect.Uint8 || !d.take('[') { // bytes are base64
		return false
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	if d.space() == ']' {
		return d.take(']')
	}
	for n := 0; ; n++ {
		if n == v.Cap() {
			v.Grow(max(4, n))
		}
		v.SetLen(n + 1)
		if !d.value(v.Index(n)) {
			return false
		}
		if d.space() != ',' {
			return d.take(']')
		}
		d.at++
	}
}

// skip passes over a value that nothing is made of, and over nothing that is not JSON.
func (d *decoder) skip() bool {
	d.space()
	r := json.NewDecoder(strings.NewReader(string(d.data[d.at:])))
	var raw json.RawMessage
	if r.Decode(&raw) != nil {
		return false
	}
	d.at += int(r.InputOffset())
	return true
}
