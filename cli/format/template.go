package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/shoalhq/shoal/lib/errs"
)

// funcs are what templates can call, as in Docker's command line.
var funcs = template.FuncMap{
	"json": func(v any) string {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return err.Error()
		}
		return strings.TrimSpace(b.String())
	},
	"split":    strings.Split,
	"join":     join,
	"title":    title,
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"pad":      pad,
	"truncate": truncate,
}

func same(v any, _ ...any) any { return v }

// headerFuncs leave headings as they are.
var headerFuncs = template.FuncMap{
	"json": same, "split": same, "join": same, "title": same, "lower": same, "upper": same, "pad": same, "truncate": same,
	"println": same,
}

// Parse reads a template of the user's; \t and \n stand for tab and newline.
func Parse(text string) (*template.Template, error) { return parse(text, nil) }

func parse(text string, over template.FuncMap) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Funcs(funcs).Funcs(over).Parse(text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "template parsing error: %w; see https://pkg.go.dev/text/template for the language", err)
	}
	return t, nil
}

// Value shows one value, as inspect, info and version do: "json", or a template that sees the Go value and, where that
// does not have a field, the raw JSON of the engine.
func Value(w io.Writer, f string, v any, raw []byte) error {
	if f == "json" {
		f = "{{json .}}"
		if raw != nil {
			var b bytes.Buffer
			if err := json.Compact(&b, raw); err == nil {
				b.WriteByte('\n')
				_, err = w.Write(b.Bytes())
				return err
			}
		}
	}
	t, err := Parse(f)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		first := err
		if raw == nil {
			return errs.New(errs.Invalid, "template parsing error: %w", first)
		}
		var m any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if dec.Decode(&m) != nil {
			return errs.New(errs.Invalid, "template parsing error: %w", first)
		}
		b.Reset()
		if err := t.Option("missingkey=error").Execute(&b, m); err != nil {
			return errs.New(errs.Invalid, "template parsing error: %w", err)
		}
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

func join(elems any, sep string) (string, error) {
	switch e := elems.(type) {
	case []string:
		return strings.Join(e, sep), nil
	case []any:
		s := make([]string, len(e))
		for i := range e {
			s[i] = fmt.Sprint(e[i])
		}
		return strings.Join(s, sep), nil
	}
	return "", fmt.Errorf("join: a list is needed, not %T", elems)
}

func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		p := prev
		prev = r
		if p == ' ' || p == '-' || p == '_' || p == '\t' {
			return []rune(strings.ToTitle(string(r)))[0]
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}
