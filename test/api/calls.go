package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// call is a line of testdata/calls.txt: [NAME :=] METHOD PATH [BODY]. NAME keeps the answer's Id for later lines, which write
// {NAME}. A body of @tar is an archive with one file.
type call struct{ keep, method, path, body string }

func (c call) String() string { return strings.TrimSpace(c.method + " " + c.path + " " + c.body) }

func parseCalls(text string) (calls []call, err error) {
	for n, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		var c call
		if name, rest, has := strings.Cut(line, " := "); has {
			c.keep, line = name, rest
		}
		f := strings.SplitN(line, " ", 3)
		if len(f) < 2 {
			return nil, fmt.Errorf("line %d: want METHOD PATH [BODY]: %s", n+1, line)
		}
		c.method, c.path = f[0], f[1]
		if len(f) == 3 {
			c.body = f[2]
		}
		calls = append(calls, c)
	}
	return calls, nil
}

// answer is what a daemon said to a call.
type answer struct {
	status int
	shape  []string
}

// parseGolden reads what record wrote: "### CALL", the status, the shape.
func parseGolden(text string) (map[string]answer, error) {
	out := map[string]answer{}
	for _, part := range strings.Split("\n"+text, "\n### ")[1:] {
		lines := strings.Split(strings.TrimSpace(part), "\n")
		if len(lines) < 2 {
			return nil, fmt.Errorf("no status behind %q", lines[0])
		}
		status, err := strconv.Atoi(lines[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", lines[0], err)
		}
		out[lines[0]] = answer{status, lines[2:]}
	}
	return out, nil
}

// compare lists how an answer differs from Docker's: the status, and lines that one of them alone has. The words of
// messages are each engine's own.
func compare(docker, ours answer) (diff []string) {
	if docker.status != ours.status {
		diff = append(diff, fmt.Sprintf("status %d, Docker %d", ours.status, docker.status))
	}
	if docker.status/100 != ours.status/100 {
		return diff // what is in an error is not what is in an answer
	}
	for _, l := range docker.shape {
		if !strings.HasPrefix(l, "message: ") && !slices.Contains(ours.shape, l) {
			diff = append(diff, "- "+l)
		}
	}
	for _, l := range ours.shape {
		if !strings.HasPrefix(l, "message: ") && !slices.Contains(docker.shape, l) {
			diff = append(diff, "+ "+l)
		}
	}
	return diff
}

// known is a line of testdata/differences.txt: CALL | DIFFERENCE | reason, where * in the first two stands for anything.
type known struct {
	call, diff *regexp.Regexp
	line       string
	used       bool
}

func parseKnown(text string) (list []*known, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, " | ")
		if len(f) != 3 || strings.TrimSpace(f[2]) == "" {
			return nil, fmt.Errorf("want CALL | DIFFERENCE | reason: %s", line)
		}
		list = append(list, &known{glob(f[0]), glob(f[1]), line, false})
	}
	return list, nil
}

func glob(s string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(strings.TrimSpace(s))) + "$")
}

// keepID is the id of what an answer made.
func keepID(body []byte) string {
	var made struct {
		ID   string `json:"Id"`
		Name string
	}
	if json.Unmarshal(body, &made) != nil {
		return ""
	}
	return cmp.Or(made.ID, made.Name)
}
