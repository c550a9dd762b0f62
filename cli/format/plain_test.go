package format

import (
	"strings"
	"testing"
)

func TestTablesAreHarmlessForTerminals(t *testing.T) {
	type row struct{ text string }
	l := List[row]{Columns: []Column[row]{{Name: "A", Header: "A", Get: func(r row) any { return r.text }}}, Table: []string{"A"}}
	evil := row{"\x1b[31mred\nnew\trow\u009b2J\x07 … ü"}
	for f, want := range map[string]string{"": "A\n\\x1b[31mred\\nnew\\trow\\u009b2J\\a … ü\n", "table {{.A}}": "A\n\\x1b[31mred\\nnew\\trow\\u009b2J\\a … ü\n",
		"{{.A}}": evil.text + "\n"} {
		var b strings.Builder
		if err := l.Write(&b, f, []row{evil}); err != nil || b.String() != want {
			t.Errorf("%q: %q, want %q (%v)", f, b.String(), want, err)
		}
	}
	if got := PlainLines("a\n\tb\x1b"); got != "a\n\tb\\x1b" {
		t.Errorf("%q", got)
	}
}
