package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// worse is how much smaller than before an advantage may be.
const worse = 0.8

// noise is how figures begin whose ratio says nothing, since ours is next to nothing and counted in few units; their
// targets judge them.
var noise = []string{"processor seconds", "time slices", "processor ms"}

// pair names a ratio: a figure and who it is compared with.
type pair struct{ what, who string }

// advantages are how many times better than others Shoal is in each figure, out of a table that markdown wrote.
func advantages(table string) (map[pair]float64, error) {
	type row struct {
		what, target, who string
		value             float64
	}
	var rows []row
	own := map[string]float64{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 8 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "what" {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		r := row{what: cells[1], target: cells[2], who: cells[3]}
		if r.what == "" && len(rows) > 0 {
			r.what, r.target = rows[len(rows)-1].what, rows[len(rows)-1].target
		}
		text, _, _ := strings.Cut(cells[4], " ")
		var err error
		if r.value, err = strconv.ParseFloat(text, 64); err != nil {
			return nil, fmt.Errorf("row %q: %w", strings.TrimSpace(line), err)
		}
		if ours(r.who) {
			own[r.what] = r.value
		}
		// A duration is better when it is smaller; of others the target says what they want, and a rate has a target.
		if strings.HasPrefix(strings.TrimPrefix(cells[4], text), " ms") {
			r.target = "≤"
		}
		rows = append(rows, r)
	}
	out := map[pair]float64{}
	for _, r := range rows {
		mine := own[r.what]
		if ours(r.who) || mine <= 0 || r.value <= 0 || slices.ContainsFunc(noise, func(n string) bool { return strings.HasPrefix(r.what, n) }) {
			continue // 0: could not be measured
		}
		a := mine / r.value
		if !strings.HasPrefix(r.target, "≥") {
			a = r.value / mine
		}
		out[pair{r.what, r.who}] = a
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the table has no ratio")
	}
	return out, nil
}

// regressions are the pairs whose advantage is more than a fifth smaller than before, of those that both tables have.
func regressions(before, now map[pair]float64) (out []pair) {
	for _, p := range slices.SortedFunc(maps.Keys(now), func(a, b pair) int { return strings.Compare(a.what+a.who, b.what+b.who) }) {
		if was, there := before[p]; there && now[p] < was*worse {
			out = append(out, p)
		}
	}
	return out
}

// confirmed judges a run against a table of before: what is worse is measured again, twice at most, and counts only if it is
// worse each time. again measures the figures of some pairs anew.
func confirmed(before, now map[pair]float64, again func([]pair) (map[pair]float64, error)) (lines []string, err error) {
	bad := regressions(before, now)
	best := maps.Clone(now)
	for range 2 {
		if len(bad) == 0 {
			return nil, nil
		}
		next, err := again(bad)
		if err != nil {
			return nil, err
		}
		for p, a := range next {
			best[p] = max(best[p], a)
		}
		bad = slices.DeleteFunc(bad, func(p pair) bool { return best[p] >= before[p]*worse })
	}
	for _, p := range bad {
		lines = append(lines, fmt.Sprintf("%s, beside %s: %.2f times as good, was %.2f", p.what, p.who, best[p], before[p]))
	}
	return lines, nil
}
