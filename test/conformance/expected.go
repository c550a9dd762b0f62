package conformance

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Expectation is a line of expected.txt.
type Expectation struct {
	Program string
	// Verdict is Pass or Fail; Host means fail on the reference machine, pass or fail elsewhere.
	Verdict Verdict
	Reason  string
}

// Host marks what depends on something that the reference machine does not have.
const Host Verdict = "host"

// ReadExpected reads the file: lines of "program verdict reason...", # comments.
func ReadExpected(path string) (map[string]Expectation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := map[string]Expectation{}
	for in := bufio.NewScanner(f); in.Scan(); {
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		words := strings.Fields(line)
		e := Expectation{Program: words[0]}
		if len(words) > 1 {
			e.Verdict = Verdict(words[1])
			e.Reason = strings.Join(words[2:], " ")
		}
		switch {
		case e.Verdict != Pass && e.Verdict != Fail && e.Verdict != Host:
			return nil, fmt.Errorf("%s: %s: verdict %q is not pass, fail or host", path, e.Program, e.Verdict)
		case e.Verdict != Pass && e.Reason == "":
			return nil, fmt.Errorf("%s: %s: say why it is not a pass", path, e.Program)
		}
		all[e.Program] = e
	}
	return all, nil
}

// Against says what is wrong with a result, or "".
func (e Expectation) Against(r Result) string {
	switch {
	case e.Verdict == "":
		return fmt.Sprintf("%s is not in expected.txt; it says %s %v", r.Program, r.Verdict, r.Why)
	case e.Verdict == Pass && r.Verdict != Pass:
		return fmt.Sprintf("%s fails: %s", r.Program, strings.Join(r.Why, "; "))
	case e.Verdict == Fail && r.Verdict == Pass:
		return fmt.Sprintf("%s passes now: change expected.txt (%s)", r.Program, e.Reason)
	}
	return ""
}
