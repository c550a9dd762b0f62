package format

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Plain makes text harmless for a terminal: what an image, a label or a process says must not move the cursor, colour what
// follows or begin a new row. Control characters are shown as Go writes them. JSON and templates of the user's keep the text
// as it is; programs read those.
func Plain(s string) string { return plain(s, "") }

// PlainLines is Plain for messages, which may have several lines.
func PlainLines(s string) string { return plain(s, "\n\t") }

func plain(s, keep string) string {
	bad := func(r rune) bool {
		return (r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError) && !strings.ContainsRune(keep, r)
	}
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !bad(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
