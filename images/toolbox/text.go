package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

func textTools() map[string]tool {
	sum := func(make func() hash.Hash) tool { return func(c *call) error { return checksum(c, make) } }
	return map[string]tool{"head": head, "tail": tail, "grep": grep, "wc": wc, "sort": sortLines, "uniq": uniq, "cut": cut, "tr": tr, "tee": tee,
		"seq": seq, "md5sum": sum(md5.New), "sha1sum": sum(sha1.New), "sha256sum": sum(sha256.New), "sha512sum": sum(sha512.New), "hexdump": hexdump,
		"rev": rev, "nl": number}
}

// lines calls f for each line without its end; f returns false to stop.
func lines(r io.Reader, f func(line []byte) (bool, error)) error {
	b := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := b.ReadBytes('\n')
		if len(line) > 0 {
			more, ferr := f(bytes.TrimSuffix(line, []byte{'\n'}))
			if ferr != nil || !more {
				return ferr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func count(flags map[byte]string, name byte, otherwise int) (int, error) {
	text, ok := flags[name]
	if !ok {
		return otherwise, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(text, "+"))
	if err != nil {
		return 0, fmt.Errorf("-%c %s: want a number", name, text)
	}
	return n, nil
}

func head(c *call) error {
	flags, files, err := c.options("n:c:q", 'n')
	if err != nil {
		return err
	}
	n, err := count(flags, 'n', 10)
	if err != nil {
		return err
	}
	size, err := count(flags, 'c', -1)
	if err != nil {
		return err
	}
	return c.each(files, func(name string, r io.Reader) error {
		if len(files) > 1 && flags['q'] == "" {
			fmt.Fprintf(c.out, "==> %s <==\n", name)
		}
		if size >= 0 {
			_, err := io.CopyN(c.out, r, int64(size))
			if err == io.EOF {
				err = nil
			}
			return err
		}
		left := n
		if left <= 0 {
			return nil
		}
		return lines(r, func(line []byte) (bool, error) {
			left--
			_, err := c.out.Write(append(line, '\n'))
			return left > 0, err
		})
	})
}

func tail(c *call) error {
	flags, files, err := c.options("n:c:fF", 'n')
	if err != nil {
		return err
	}
	n, err := count(flags, 'n', 10)
	if err != nil {
		return err
	}
	if flags['c'] != "" {
		return fmt.Errorf("-c is not here; use -n")
	}
	from := strings.HasPrefix(flags['n'], "+")
	return c.each(files, func(name string, r io.Reader) error {
		var ring [][]byte
		at := 0
		err := lines(r, func(line []byte) (bool, error) {
			at++
			if from {
				if at < n {
					return true, nil
				}
				_, err := c.out.Write(append(line, '\n'))
				return true, err
			}
			if ring = append(ring, line); len(ring) > n {
				ring = ring[1:]
			}
			return true, nil
		})
		for _, line := range ring {
			c.out.Write(append(line, '\n'))
		}
		if f, ok := r.(*os.File); ok && err == nil && (flags['f'] != "" || flags['F'] != "") {
			return follow(c.out, f)
		}
		return err
	})
}

func grep(c *call) error {
	flags, rest, err := c.options("ivncqlEFroeHhwx", 0)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return fmt.Errorf("want a pattern")
	}
	pattern, files := rest[0], rest[1:]
	if flags['F'] != "" {
		pattern = regexp.QuoteMeta(pattern)
	} else if flags['E'] == "" { // in basic expressions these mean themselves, and something with a backslash
		pattern = basic(pattern)
	}
	if flags['w'] != "" {
		pattern = `\b(?:` + pattern + `)\b`
	}
	if flags['x'] != "" {
		pattern = `^(?:` + pattern + `)$`
	}
	if flags['i'] != "" {
		pattern = "(?i)" + pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if flags['r'] != "" {
		if files, err = filesBelow(files); err != nil {
			return err
		}
	}
	g := &grepping{c: c, re: re, flags: flags, named: (len(files) > 1 || flags['H'] != "") && flags['h'] == ""}
	if err := c.each(files, g.file); err != nil {
		fmt.Fprintln(c.err, "grep:", err)
		return status(2)
	}
	if !g.found {
		return status(1)
	}
	return nil
}

// basic turns a basic regular expression into an extended one.
func basic(p string) string {
	var out strings.Builder
	for i := 0; i < len(p); i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p) && strings.IndexByte("+?|(){}", p[i+1]) >= 0:
			i++
			out.WriteByte(p[i])
		case p[i] == '\\' && i+1 < len(p):
			out.WriteString(p[i : i+2])
			i++
		case strings.IndexByte("+?|(){}", p[i]) >= 0:
			out.WriteString(`\` + p[i:i+1])
		default:
			out.WriteByte(p[i])
		}
	}
	return out.String()
}

type grepping struct {
	c     *call
	re    *regexp.Regexp
	flags map[byte]string
	named bool
	found bool
}

func (g *grepping) file(name string, r io.Reader) error {
	prefix := ""
	if g.named {
		prefix = name + ":"
	}
	n, hits := 0, 0
	err := lines(r, func(line []byte) (bool, error) {
		n++
		if g.re.Match(line) == (g.flags['v'] != "") {
			return true, nil
		}
		hits++
		g.found = true
		switch {
		case g.flags['q'] != "" || g.flags['l'] != "":
			return false, nil
		case g.flags['c'] != "":
			return true, nil
		case g.flags['n'] != "":
			fmt.Fprintf(g.c.out, "%s%d:", prefix, n)
		default:
			io.WriteString(g.c.out, prefix)
		}
		if g.flags['o'] != "" {
			line = bytes.Join(g.re.FindAll(line, -1), []byte{'\n'})
		}
		_, err := g.c.out.Write(append(line, '\n'))
		return true, err
	})
	if g.flags['l'] != "" && hits > 0 {
		fmt.Fprintln(g.c.out, name)
	}
	if g.flags['c'] != "" {
		fmt.Fprintf(g.c.out, "%s%d\n", prefix, hits)
	}
	return err
}

func wc(c *call) error {
	flags, files, err := c.options("lwcm", 0)
	if err != nil {
		return err
	}
	var total [3]int
	show := func(n [3]int, name string) {
		var cols []string
		for i, f := range "lwc" {
			if len(flags) == 0 || flags[byte(f)] != "" || f == 'c' && flags['m'] != "" {
				cols = append(cols, strconv.Itoa(n[i]))
			}
		}
		if name != "-" {
			cols = append(cols, name)
		}
		fmt.Fprintln(c.out, strings.Join(cols, " "))
	}
	err = c.each(files, func(name string, r io.Reader) error {
		var n [3]int
		inWord := false
		buf := make([]byte, 1<<16)
		for {
			k, err := r.Read(buf)
			for _, b := range buf[:k] {
				if b == '\n' {
					n[0]++
				}
				space := b == ' ' || b >= '\t' && b <= '\r'
				if !space && !inWord {
					n[1]++
				}
				inWord = !space
				if flags['m'] == "" || utf8.RuneStart(b) {
					n[2]++
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		for i := range n {
			total[i] += n[i]
		}
		show(n, name)
		return nil
	})
	if len(files) > 1 {
		show(total, "total")
	}
	return err
}

func sortLines(c *call) error {
	flags, files, err := c.options("rnuk:t:f", 0)
	if err != nil {
		return err
	}
	var all []string
	err = c.each(files, func(_ string, r io.Reader) error {
		return lines(r, func(line []byte) (bool, error) { all = append(all, string(line)); return true, nil })
	})
	if err != nil {
		return err
	}
	field, err := count(flags, 'k', 0)
	if err != nil {
		return err
	}
	keyOf := func(s string) string {
		if field > 0 {
			parts := strings.Fields(s)
			if flags['t'] != "" {
				parts = strings.Split(s, flags['t'])
			}
			s = ""
			if field <= len(parts) {
				s = parts[field-1]
			}
		}
		if flags['f'] != "" {
			s = strings.ToLower(s)
		}
		return s
	}
	slices.SortStableFunc(all, func(a, b string) int {
		if flags['r'] != "" {
			a, b = b, a
		}
		ka, kb := keyOf(a), keyOf(b)
		if flags['n'] != "" {
			if d := leadingNumber(ka) - leadingNumber(kb); d != 0 {
				if d < 0 {
					return -1
				}
				return 1
			}
		}
		return strings.Compare(ka, kb)
	})
	if flags['u'] != "" {
		all = slices.Compact(all)
	}
	w := bufio.NewWriter(c.out)
	for _, l := range all {
		w.WriteString(l + "\n")
	}
	return w.Flush()
}

func leadingNumber(s string) float64 {
	s = strings.TrimSpace(s)
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || s[end] == '.' || end == 0 && s[end] == '-') {
		end++
	}
	f, _ := strconv.ParseFloat(s[:end], 64)
	return f
}

func uniq(c *call) error {
	flags, files, err := c.options("cdu", 0)
	if err != nil {
		return err
	}
	last, n := "", 0
	flush := func() {
		if n == 0 || flags['d'] != "" && n == 1 || flags['u'] != "" && n > 1 {
			return
		}
		if flags['c'] != "" {
			fmt.Fprintf(c.out, "%7d ", n)
		}
		fmt.Fprintln(c.out, last)
	}
	err = c.each(files, func(_ string, r io.Reader) error {
		return lines(r, func(line []byte) (bool, error) {
			if n > 0 && string(line) == last {
				n++
				return true, nil
			}
			flush()
			last, n = string(line), 1
			return true, nil
		})
	})
	flush()
	return err
}

func cut(c *call) error {
	flags, files, err := c.options("d:f:c:s", 0)
	if err != nil {
		return err
	}
	spec := flags['f'] + flags['c']
	if spec == "" || flags['f'] != "" && flags['c'] != "" {
		return fmt.Errorf("want -f LIST or -c LIST")
	}
	wanted := func(n int) bool {
		for part := range strings.SplitSeq(spec, ",") {
			first, last, isRange := strings.Cut(part, "-")
			a, _ := strconv.Atoi(first)
			b, _ := strconv.Atoi(last)
			if n == a && !isRange || isRange && n >= a && (last == "" || n <= b) {
				return true
			}
		}
		return false
	}
	delimiter := flags['d']
	if delimiter == "" {
		delimiter = "\t"
	}
	return c.each(files, func(_ string, r io.Reader) error {
		return lines(r, func(line []byte) (bool, error) {
			parts, glue := strings.Split(string(line), delimiter), delimiter
			if flags['c'] != "" {
				parts, glue = strings.Split(string(line), ""), ""
			} else if len(parts) == 1 {
				if flags['s'] == "" {
					fmt.Fprintln(c.out, parts[0])
				}
				return true, nil
			}
			var out []string
			for i, p := range parts {
				if wanted(i + 1) {
					out = append(out, p)
				}
			}
			_, err := fmt.Fprintln(c.out, strings.Join(out, glue))
			return true, err
		})
	})
}

// set expands the ranges, classes and escapes of tr.
func set(s string) []byte {
	for name, chars := range map[string]string{"[:lower:]": "a-z", "[:upper:]": "A-Z", "[:digit:]": "0-9", "[:alpha:]": "A-Za-z", "[:space:]": " \t\n\r\v\f", "[:alnum:]": "0-9A-Za-z"} {
		s = strings.ReplaceAll(s, name, chars)
	}
	s = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r", `\0`, "\x00", `\\`, `\`).Replace(s)
	var out []byte
	for i := 0; i < len(s); i++ {
		if i+2 < len(s) && s[i+1] == '-' && s[i+2] >= s[i] {
			for b := int(s[i]); b <= int(s[i+2]); b++ {
				out = append(out, byte(b))
			}
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return out
}

func tr(c *call) error {
	flags, rest, err := c.options("dsc", 0)
	if err != nil {
		return err
	}
	if len(rest) == 0 || len(rest) == 1 && flags['d'] == "" && flags['s'] == "" {
		return fmt.Errorf("want two sets, or -d and one")
	}
	from := set(rest[0])
	if flags['c'] != "" {
		var rest []byte
		for b := range 256 {
			if !bytes.Contains(from, []byte{byte(b)}) {
				rest = append(rest, byte(b))
			}
		}
		from = rest
	}
	var to []byte
	if len(rest) > 1 {
		to = set(rest[1])
	}
	in, out := bufio.NewReader(c.in), bufio.NewWriter(c.out)
	defer out.Flush()
	last := -1
	for {
		b, err := in.ReadByte()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at := bytes.IndexByte(from, b)
		if at >= 0 && flags['d'] != "" {
			continue
		}
		if at >= 0 && len(to) > 0 {
			b = to[min(at, len(to)-1)]
		}
		if flags['s'] != "" && at >= 0 && last == int(b) {
			continue
		}
		last = int(b)
		if err := out.WriteByte(b); err != nil {
			return err
		}
	}
}

func tee(c *call) error {
	flags, files, err := c.options("a", 0)
	if err != nil {
		return err
	}
	mode := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if flags['a'] != "" {
		mode = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	out := []io.Writer{c.out}
	for _, name := range files {
		f, err := os.OpenFile(name, mode, 0o666)
		if err != nil {
			return err
		}
		defer f.Close()
		out = append(out, f)
	}
	_, err = io.Copy(io.MultiWriter(out...), c.in)
	return err
}

func seq(c *call) error {
	n := []float64{1, 1, 1}
	if len(c.args) < 1 || len(c.args) > 3 {
		return fmt.Errorf("want LAST, FIRST LAST, or FIRST STEP LAST")
	}
	for i, a := range c.args {
		f, err := strconv.ParseFloat(a, 64)
		if err != nil {
			return err
		}
		switch {
		case i == len(c.args)-1:
			n[2] = f
		default:
			n[i] = f
		}
	}
	if n[1] == 0 {
		return fmt.Errorf("a step of 0 does not lead anywhere")
	}
	w := bufio.NewWriter(c.out)
	for i := 0; ; i++ {
		x := n[0] + float64(i)*n[1]
		if n[1] > 0 && x > n[2] || n[1] < 0 && x < n[2] {
			return w.Flush()
		}
		if _, err := fmt.Fprintln(w, strconv.FormatFloat(x, 'f', -1, 64)); err != nil {
			return err
		}
	}
}

func checksum(c *call, make func() hash.Hash) error {
	return c.each(c.args, func(name string, r io.Reader) error {
		h := make()
		if _, err := io.Copy(h, r); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "%x  %s\n", h.Sum(nil), name)
		return err
	})
}

func hexdump(c *call) error {
	_, files, err := c.options("C", 0)
	if err != nil {
		return err
	}
	return c.each(files, func(_ string, r io.Reader) error {
		d := hex.Dumper(c.out)
		defer d.Close()
		_, err := io.Copy(d, r)
		return err
	})
}

func rev(c *call) error {
	return c.each(c.args, func(_ string, r io.Reader) error {
		return lines(r, func(line []byte) (bool, error) {
			runes := []rune(string(line))
			slices.Reverse(runes)
			_, err := fmt.Fprintln(c.out, string(runes))
			return true, err
		})
	})
}

func number(c *call) error {
	n := 0
	return c.each(c.args, func(_ string, r io.Reader) error {
		return lines(r, func(line []byte) (bool, error) {
			n++
			_, err := fmt.Fprintf(c.out, "%6d\t%s\n", n, line)
			return true, err
		})
	})
}
