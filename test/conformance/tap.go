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

// silent is the program that prints nothing when all is well.
const silent = "process_rlimits_fail"

// read judges what a program printed (https://testanything.org) and how it ended. Programs that make no check of their
// own (hooks, poststart and their like) report a violation as a diagnostic named error; so that counts where no check does.
// Output without its plan ("1..N", printed last) is of a check that died within the container, which the programs overlook.
func read(program, stdout, stderr string, ended error) Result {
	r := Result{Program: program, Verdict: Pass}
	var complaint string
	planned := program == silent
	for line := range strings.Lines(stdout) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "1.."):
			planned = true
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
	if !planned && ended == nil {
		r.Why = append(r.Why, "ended before its checks did: "+lastLines(stderr, 2))
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
