package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

type outcome string

const (
	passed  outcome = "pass"
	failed  outcome = "FAIL"
	skipped outcome = "skip"
)

// result is what became of a test and of its subtests.
type result struct {
	suite, name string
	outcome     outcome
	failures    []string // full names of the innermost failed tests
}

type results []result

var verdict = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+)`)

// add judges what a test printed.
func (r *results) add(suite, name, text string) outcome {
	one := result{suite: suite, name: name, outcome: failed}
	found := false
	for _, m := range verdict.FindAllStringSubmatch(text, -1) {
		if m[2] == name {
			found = true
			one.outcome = map[string]outcome{"PASS": passed, "FAIL": failed, "SKIP": skipped}[m[1]]
		}
		if m[1] == "FAIL" {
			one.failures = append(one.failures, m[2])
		}
	}
	if !found || (one.outcome == failed && one.failures == nil) {
		one.outcome, one.failures = failed, append(one.failures, name)
	}
	one.failures = slices.DeleteFunc(one.failures, func(n string) bool {
		return slices.ContainsFunc(one.failures, func(other string) bool { return strings.HasPrefix(other, n+"/") })
	})
	slices.Sort(one.failures)
	one.failures = slices.Compact(one.failures)
	*r = append(*r, one)
	return one.outcome
}

// expected is a line of testdata/expected.txt: SUITE TEST | reason, where TEST may name a subtest and end with *.
type expected struct {
	suite, test, reason string
	used                bool
}

func readExpected(name string) (list []*expected, err error) {
	text, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		what, reason, has := strings.Cut(line, " | ")
		suite, test, two := strings.Cut(what, " ")
		if !has || !two {
			return nil, fmt.Errorf("want SUITE TEST | reason: %s", line)
		}
		list = append(list, &expected{suite, strings.TrimSpace(test), reason, false})
	}
	return list, nil
}

func (e *expected) matches(suite, test string) bool {
	if begin, ok := strings.CutSuffix(e.test, "*"); ok && strings.HasPrefix(test, begin) {
		return e.suite == suite
	}
	return e.suite == suite && (e.test == test || strings.HasPrefix(test, e.test+"/"))
}

// report prints the table and says whether every failure stands in the list.
func report(all results, list []*expected, complete bool) bool {
	ok := true
	fmt.Println("\n| suite | tests | passed | skipped | failed |\n|---|---|---|---|---|")
	count := map[string]map[outcome]int{}
	var order []string
	for _, r := range all {
		if count[r.suite] == nil {
			count[r.suite] = map[outcome]int{}
			order = append(order, r.suite)
		}
		count[r.suite][r.outcome]++
	}
	for _, s := range order {
		c := count[s]
		fmt.Printf("| %s | %d | %d | %d | %d |\n", s, c[passed]+c[skipped]+c[failed], c[passed], c[skipped], c[failed])
	}
	fmt.Println()
	for _, r := range all {
		for _, f := range r.failures {
			known := false
			for _, e := range list {
				if e.matches(r.suite, f) {
					e.used, known = true, true
				}
			}
			if !known {
				ok = false
				fmt.Printf("FAILED, not expected: %s %s\n", r.suite, f)
			}
		}
	}
	for _, e := range list {
		if _, ran := count[e.suite]; complete && ran && !e.used {
			fmt.Printf("passes now, take it out of the list: %s %s\n", e.suite, e.test)
		}
	}
	return ok
}
