package main

import (
	"strings"
	"testing"
)

const stream = `# a line of the build
{"Action":"start","Package":"a"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"    a_test.go:1: talk\n"}
{"Action":"pass","Package":"a","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"a","Test":"TestOut","Output":"=== RUN   TestOut\n"}
{"Action":"output","Package":"a","Test":"TestOut","Output":"    a_test.go:2: no such program here\n"}
{"Action":"output","Package":"a","Test":"TestOut","Output":"--- SKIP: TestOut (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestOut","Elapsed":0}
{"Action":"output","Package":"a","Output":"PASS\n"}
{"Action":"output","Package":"a","Output":"ok  \ta\t0.2s\n"}
{"Action":"pass","Package":"a","Elapsed":0.2}
`

const bad = `{"Action":"output","Package":"b","Test":"TestBad","Output":"    b_test.go:1: wrong\n"}
{"Action":"fail","Package":"b","Test":"TestBad","Elapsed":0.1}
{"Action":"output","Package":"b","Test":"TestDies","Output":"=== RUN   TestDies\n"}
{"Action":"output","Package":"b","Test":"TestDies","Output":"panic: oh\n"}
{"Action":"output","Package":"b","Output":"FAIL\tb\t0.2s\n"}
{"Action":"fail","Package":"b","Elapsed":0.2}
`

func TestReport(t *testing.T) {
	for name, c := range map[string]struct {
		in, want string
		failed   bool
	}{
		"good": {stream, "# a line of the build\nok  \ta\t0.2s\nSKIPPED: a TestOut: a_test.go:2: no such program here\n", false},
		"bad":  {bad, "    b_test.go:1: wrong\n=== RUN   TestDies\npanic: oh\nFAIL\tb\t0.2s\n", true},
	} {
		var out strings.Builder
		r := report{out: &out, said: map[test][]string{}}
		if err := r.read(strings.NewReader(c.in)); err != nil {
			t.Fatal(err)
		}
		if failed := r.end(); failed != c.failed || out.String() != c.want {
			t.Errorf("%s: failed %v\n%s", name, failed, out.String())
		}
	}
}
