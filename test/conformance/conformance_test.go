package conformance

import (
	"errors"
	"testing"
)

func TestReadResults(t *testing.T) {
	for _, k := range []struct {
		name, out, err string
		ended          error
		verdict        Verdict
		passed, total  int
		why            string
	}{
		{name: "all well", out: "TAP version 13\nok 1 - a\n  ---\n  {\n    \"error\": \"exit status 1\"\n  }\n  ...\nok 2 - b # SKIP\n1..2\n",
			verdict: Pass, passed: 2, total: 2},
		{name: "a check fails", out: "ok 1 - a\nnot ok 2 - what is wrong\n1..2\n", verdict: Fail, passed: 1, total: 2, why: "what is wrong"},
		{name: "said by a diagnostic only", out: "TAP version 13\n  ---\n  {\n    \"error\": \"MUST be \\\"x\\\"\"\n  }\n  ...\n1..0\n",
			verdict: Fail, why: `MUST be "x"`},
		{name: "nested output is the container's", out: "  ---\n  {\n    \"stdout\": \"not ok 1\"\n  }\nok 1 - a\n1..1\n", verdict: Pass, passed: 1, total: 1},
		{name: "dies within the container", out: "TAP version 13\nok 1 - a\n", verdict: Fail, passed: 1, total: 1, why: "ended before its checks did: "},
		{name: "ends badly", out: "ok 1 - a\n", err: "x\ny\nz\n", ended: errors.New("exit status 1"), verdict: Fail, passed: 1, total: 1, why: "y; z (exit status 1)"},
	} {
		r := read("p", k.out, k.err, k.ended)
		if r.Verdict != k.verdict || r.Passed != k.passed || r.Total != k.total || k.why != "" && (len(r.Why) != 1 || r.Why[0] != k.why) {
			t.Errorf("%s: %+v", k.name, r)
		}
	}
}

func TestExpectedFile(t *testing.T) {
	if _, err := ReadExpected("expected.txt"); err != nil {
		t.Error(err)
	}
}
