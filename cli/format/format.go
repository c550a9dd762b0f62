// Package format shows lists the way Docker's command line does: as a table, as one JSON object per line, or through a Go
// template of the user's. Default tables are written without templates, which cost start time; the placeholders of a
// list are data (Column), so that table, JSON and templates cannot disagree. It must not know what it shows.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/shoalhq/shoal/lib/errs"
)

// Column is one placeholder: {{.Name}} in templates, Header in tables.
type Column[T any] struct {
	Name   string
	Header string
	Get    func(T) any
}

// List is a kind of thing that can be listed.
type List[T any] struct {
	Columns []Column[T]
	// Table names the columns of the default table.
	Table []string
	// Label gives the value of {{.Label "key"}}; nil where there is none.
	Label func(T, string) string
}

// IsTable says whether a --format value asks for a table.
func IsTable(f string) bool { return f == "" || f == "table" || strings.HasPrefix(f, "table ") }

// Write shows rows as the --format value f says: "" or "table", "table TEMPLATE", "json", TEMPLATE.
func (l List[T]) Write(w io.Writer, f string, rows []T) error {
	// All in one piece: a system call for each cell would cost more than everything else.
	var b bytes.Buffer
	if err := l.write(&b, f, rows); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (l List[T]) write(w io.Writer, f string, rows []T) error {
	switch {
	case f == "" || f == "table":
		return l.table(w, rows)
	case f == "json" || f == "{{json .}}":
		return l.json(w, rows)
	}
	body, table := strings.CutPrefix(f, "table ")
	if !table {
		body = f
	}
	t, err := Parse(body)
	if err != nil {
		return err
	}
	t.Option("missingkey=error") // a placeholder that does not exist
	if !table {
		for _, r := range rows {
			if err := line(w, t, l.data(r)); err != nil {
				return l.explain(err)
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	h, err := parse(body, headerFuncs)
	if err != nil {
		return err
	}
	h.Option("missingkey=error")
	head := data{}
	for _, c := range l.Columns {
		head[c.Name] = c.Header
	}
	if l.Label != nil {
		head["\x00label"] = labelHeader
	}
	if err := line(tw, h, head); err != nil {
		return l.explain(err)
	}
	for _, r := range rows {
		if err := line(tw, t, l.data(r).plain()); err != nil {
			return l.explain(err)
		}
	}
	return tw.Flush()
}

func line(w io.Writer, t *template.Template, v any) error {
	if err := t.Execute(w, v); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (l List[T]) table(w io.Writer, rows []T) error {
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	cols := make([]Column[T], 0, len(l.Table))
	for _, name := range l.Table {
		for _, c := range l.Columns {
			if c.Name == name {
				cols = append(cols, c)
			}
		}
	}
	for i, c := range cols {
		sep(tw, i)
		io.WriteString(tw, c.Header)
	}
	io.WriteString(tw, "\n")
	for _, r := range rows {
		for i, c := range cols {
			sep(tw, i)
			io.WriteString(tw, Plain(text(c.Get(r))))
		}
		io.WriteString(tw, "\n")
	}
	return tw.Flush()
}

func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return fmt.Sprint(v)
}

func sep(w io.Writer, i int) {
	if i > 0 {
		io.WriteString(w, "\t")
	}
}

func (l List[T]) json(w io.Writer, rows []T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, r := range rows {
		if err := enc.Encode(l.data(r)); err != nil {
			return err
		}
	}
	return nil
}

// data is what a template sees of a row.
type data map[string]any

// plain is the row for a terminal.
func (d data) plain() data {
	for k, v := range d {
		if s, ok := v.(string); ok {
			d[k] = Plain(s)
		}
	}
	return d
}

// Label is {{.Label "key"}}.
func (d data) Label(key string) (string, error) {
	f, ok := d["\x00label"].(func(string) string)
	if !ok {
		return "", fmt.Errorf("these have no labels")
	}
	return f(key), nil
}

// MarshalJSON leaves out what is not a placeholder.
func (d data) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(d))
	for k, v := range d {
		if k != "\x00label" {
			m[k] = v
		}
	}
	return json.Marshal(m)
}

func (l List[T]) data(r T) data {
	d := make(data, len(l.Columns)+1)
	for _, c := range l.Columns {
		d[c.Name] = c.Get(r)
	}
	if l.Label != nil {
		d["\x00label"] = func(key string) string { return l.Label(r, key) }
	}
	return d
}

// explain adds to the error of a template that names an unknown placeholder which ones there are.
func (l List[T]) explain(err error) error {
	names := make([]string, len(l.Columns))
	for i, c := range l.Columns {
		names[i] = "." + c.Name
	}
	return errs.New(errs.Invalid, "--format: %w; placeholders are %s", err, strings.Join(names, " "))
}

// labelHeader makes a heading of a label's key: com.example.my-key is "my key".
func labelHeader(key string) string {
	last := key[strings.LastIndex(key, ".")+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(last)
}
