package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const head = "| what | target | who | figure | ratio to Shoal | target met |\n|---|---|---|---|---|---|\n"

func TestAdvantages(t *testing.T) {
	got, err := advantages("# Benchmarks\n\ntext\n" + head +
		"| run | ≤ 25 ms | shoal | 20.0 ms (1.0 ms to 2.0 ms) |  | yes |\n|  |  | docker | 200.0 ms (1.0 ms to 2.0 ms) | 10.00 |  |\n" +
		"| starts | ≥ 50/s | shoal | 60 |  | yes |\n| stops |  | shoal | 7 |  |  |\n| starts | ≥ 50/s | docker | 6 | 0.10 |  |\n" +
		"| memory, MB | ≤ 1.5 | shoal | 0.5 |  | yes |\n|  |  | docker | 2 | 4.00 |  |\n|  |  | podman | 0 | 0.00 |  |\n" +
		"| time slices per second | < 1 | shoal | 0.03 |  | yes |\n|  |  | docker | 63 | 2100.00 |  |\n| alone |  | docker | 3 |  |  |\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[pair]float64{{"run", "docker"}: 10, {"starts", "docker"}: 10, {"memory, MB", "docker"}: 4}
	if len(got) != len(want) {
		t.Errorf("%v, want %v", got, want)
	}
	for p, a := range want {
		if got[p] != a {
			t.Errorf("%v: %v, want %v", p, got[p], a)
		}
	}
	for _, bad := range []string{"", head, head + "| run |  | shoal | fast |  |  |\n", head + "| run |  | shoal | 1 |  |  |\n"} {
		if got, err := advantages(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// What is written can be read again.
func TestAdvantagesOfReport(t *testing.T) {
	var r report
	r.add("run", "≤ 25 ms", "shoal", []time.Duration{20 * time.Millisecond})
	r.add("run", "≤ 25 ms", "docker", []time.Duration{200 * time.Millisecond})
	r.rate("rate", "≥ 1", "by hand", 1500)
	r.rate("rate", "≥ 1", "shoal", 3000)
	got, err := advantages(r.markdown(nil, time.Unix(0, 0)))
	if err != nil || got[pair{"run", "docker"}] != 10 || got[pair{"rate", "by hand"}] != 2 {
		t.Errorf("%v %v", got, err)
	}
}

func TestConfirmed(t *testing.T) {
	a, b, c := pair{"a", "docker"}, pair{"b", "docker"}, pair{"c", "docker"}
	before := map[pair]float64{a: 10, b: 10, {"gone", "docker"}: 3}
	asked := 0
	again := func(results ...map[pair]float64) func([]pair) (map[pair]float64, error) {
		asked = 0
		return func([]pair) (map[pair]float64, error) { asked++; return results[asked-1], nil }
	}
	for _, x := range []struct {
		name  string
		now   map[pair]float64
		again []map[pair]float64
		says  string
	}{
		{"better, a fifth, new", map[pair]float64{a: 20, b: 8, c: 0.1}, nil, ""},
		{"confirmed", map[pair]float64{a: 7.9, b: 10}, []map[pair]float64{{a: 7}, {a: 7.5}}, "a, beside docker: 7.90 times as good, was 10.00"},
		{"not the second time", map[pair]float64{a: 7.9, b: 10}, []map[pair]float64{{a: 8}}, ""},
		{"not the third time", map[pair]float64{a: 7.9, b: 10}, []map[pair]float64{{a: 1}, {a: 8}}, ""},
		{"another got worse meanwhile", map[pair]float64{a: 7.9, b: 10}, []map[pair]float64{{a: 9, b: 1}}, ""},
		{"not measured again", map[pair]float64{a: 1, b: 10}, []map[pair]float64{{}, {}}, "a, beside docker"},
	} {
		lines, err := confirmed(before, x.now, again(x.again...))
		if err != nil || strings.Join(lines, "\n") != x.says && (x.says == "" || !strings.HasPrefix(strings.Join(lines, "\n"), x.says)) || asked != len(x.again) {
			t.Errorf("%s: %q %v after %d repetitions", x.name, lines, err, asked)
		}
	}
	if _, err := confirmed(before, map[pair]float64{a: 1}, func([]pair) (map[pair]float64, error) { return nil, errors.New("broke") }); err == nil {
		t.Error("the failure of a repetition is lost")
	}
}
