package api

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// id is what differs in every run: IDs and digests, whole or short, where they are names.
var id = regexp.MustCompile(`\b[0-9a-f]{12}([0-9a-f]{52})?\b`)

// chosen is a range that an engine chose by itself.
var chosen = regexp.MustCompile(`\bfd[0-9a-f:]+::/64`)

// shape lists what is in a body, a line each: the path of the value and its kind. The elements of a list are taken together,
// and so are the documents of a stream. An error document keeps its words. What is no JSON is one line.
func shape(body []byte) []string {
	lines := map[string]bool{}
	dec := json.NewDecoder(bytes.NewReader(body))
	for {
		var v any
		err := dec.Decode(&v)
		if err == io.EOF {
			break
		}
		if err != nil {
			return []string{"(no JSON)"}
		}
		if m, ok := v.(map[string]any); ok && len(m) == 1 {
			if text, ok := m["message"].(string); ok {
				lines["message: "+id.ReplaceAllString(strings.TrimSpace(text), "ID")] = true
				continue
			}
		}
		walk("", v, lines)
	}
	return slices.Sorted(maps.Keys(lines))
}

func walk(path string, v any, lines map[string]bool) {
	add := func(kind string) { lines[strings.TrimSpace(path+" "+kind)] = true }
	switch v := v.(type) {
	case nil:
		add("null")
	case string:
		add("string")
	case float64:
		add("number")
	case bool:
		add("bool")
	case []any:
		if len(v) == 0 {
			add("[]")
		}
		for _, e := range v {
			walk(path+"[]", e, lines)
		}
	case map[string]any:
		if len(v) == 0 {
			add("{}")
		}
		for k, e := range v {
			walk(strings.TrimPrefix(path+"."+chosen.ReplaceAllString(id.ReplaceAllString(k, "ID"), "ULA"), "."), e, lines)
		}
	}
}
