package main

import (
	"strings"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	docker := map[string]float64{"docker": float64(250 * time.Millisecond)}
	for _, c := range []struct {
		f      figure
		others map[string]float64
		want   string
	}{
		{figure{target: "≤ 25 ms, ≥ 10× faster than docker", value: float64(24 * time.Millisecond), unit: true}, docker, "yes"},
		{figure{target: "≤ 25 ms, ≥ 10× faster than docker", value: float64(25.5 * float64(time.Millisecond)), unit: true}, docker, "no: 25.5 for ≤ 25 ms"},
		{figure{target: "≤ 30 ms, ≥ 10× faster than docker", value: float64(26 * time.Millisecond), unit: true}, docker, "no: 9.62 for ≥ 10×"},
		{figure{target: "≤ 30 ms, ≥ 10× faster than docker", value: float64(26 * time.Millisecond), unit: true}, nil, "yes"},
		{figure{target: "≥ 50/s", value: 49}, nil, "no: 49"},
		{figure{target: "≥ 3× docker", value: 310}, map[string]float64{"docker": 100}, "yes"},
		{figure{target: "< 1", value: 1}, nil, "no"},
		{figure{target: "≥ 0.97 of by hand", value: 95}, map[string]float64{"by hand": 100}, "no: 0.95"},
		{figure{target: "≤ 0.6 of docker, ≤ 1.5 of bare work", value: float64(200 * time.Millisecond), unit: true}, docker, "no: 0.8 for ≤ 0.6"},
		{figure{target: "≤ 0.6 of docker, ≤ 1.5 of bare work", value: float64(140 * time.Millisecond), unit: true},
			map[string]float64{"docker": docker["docker"], "bare work": float64(100 * time.Millisecond)}, "yes"},
		{figure{target: "≥ 30,000", value: 31}, nil, "no: 31 for"},
		{figure{target: "≈ 0", value: 7}, nil, ""},
		{figure{}, nil, ""},
	} {
		if got := verdict(c.f, c.others); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%q %v: %q, want %q", c.f.target, c.f.value, got, c.want)
		}
	}
}
