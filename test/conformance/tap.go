package conformance

import (
	"encoding/json"
	"strings"
)

// Verdict is what a program says of a runtime.
type Verdict string

const (
	Pass Verdict = "pass"
	Fail Verdict = "fail"
)

// Result is one run of one program.
type Result struct {
	Program       string
	Verdict       Verdict
	Passed, Total int      // checks
	Why           []string // checks that failed, or the error that ended the program
}

// read judges what a program printed (https://testanything.org) and how it ended. Programs that make no check of their
// own (hooks, poststart and their like) report a violation as a diagnostic named error; so that counts where no check does.
func read(program, stdout, stderr string, ended error) Result {
	r := Result{Program: program, Verdict: Pass}
	var complaint string
	for line := range strings.Lines(stdout) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "ok "):
			r.Passed, r.Total = r.Passed+1, r.Total+1
		case strings.HasPrefix(line, "not ok "):
			r.Total++
			_, what, _ := strings.Cut(strings.TrimPrefix(line, "not ok "), " - ")
			r.Why = append(r.Why, what)
		case complaint == "" && strings.HasPrefix(line, `    "error": "`):
			json.Unmarshal([]byte(strings.TrimSuffix(strings.TrimPrefix(line, `    "error": `), ",")), &complaint)
		}
	}
	if ended != nil {
		r.Why = append(r.Why, lastLines(stderr, 2)+" ("+ended.Error()+")")
	}
	if r.Total == 0 && complaint != "" {
		r.Why = append(r.Why, complaint)
	}
	if len(r.Why) > 0 {
		r.Verdict = Fail
	}
	return r
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
