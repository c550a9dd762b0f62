package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

type figure struct {
	what, target, who string
	value             float64
	text              string
	unit              bool // a duration: smaller is better
	section           string
}

type report struct {
	figures []figure
	notes   []string
	rest    []restRow
	phases  []phaseTable
}

func (r *report) add(what, target, who string, ds []time.Duration) {
	m := median(ds)
	r.figures = append(r.figures, figure{what: what, target: target, who: who, value: float64(m), text: fmt.Sprintf("%s (%s to %s)", ms(m), ms(ds[0]), ms(ds[len(ds)-1])), unit: true})
	fmt.Fprintf(os.Stderr, "  %s: %s %s\n", what, who, ms(m))
}

// rates adds the median of sorted values, with their spread.
func (r *report) rates(what, target, who string, vs []float64) {
	r.rate(what, target, who, vs[len(vs)/2])
	r.figures[len(r.figures)-1].text += fmt.Sprintf(" (%.3g to %.3g)", vs[0], vs[len(vs)-1])
}

func (r *report) rate(what, target, who string, v float64) {
	text := fmt.Sprintf("%.3g", v)
	if v >= 1000 {
		text = fmt.Sprintf("%.0f", v)
	}
	r.figures = append(r.figures, figure{what: what, target: target, who: who, value: v, text: text})
	fmt.Fprintf(os.Stderr, "  %s: %s %.3g\n", what, who, v)
}

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
	fmt.Fprintln(os.Stderr, "bench:", r.notes[len(r.notes)-1])
}

// holds says whether a section made a figure of these pairs.
func (r *report) holds(section string, pairs []pair) bool {
	return slices.ContainsFunc(r.figures, func(f figure) bool { return f.section == section && slices.Contains(pairs, pair{f.what, f.who}) })
}

// ours says which rows are Shoal's.
func ours(who string) bool { return strings.HasPrefix(who, "shoal") }

func (r *report) markdown(engines []*engine, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\nMade by `make bench` on %s. Durations are medians (minimum to maximum) of whole processes, taken in turn with the\nother engines in one run; the ratio is the other's figure to Shoal's.\n\n", now.UTC().Format("2006-01-02"))
	fmt.Fprintf(&b, "Machine: %s, %s.\nVersions:", oneLine("nproc")+" processors", strings.TrimSpace(oneLine("uname", "-sr")))
	for _, e := range engines {
		fmt.Fprintf(&b, " %s %s;", e.name, e.version)
	}
	for _, rt := range []string{"runc", "crun"} {
		if v := strings.SplitN(oneLine(rt, "--version"), "\n", 2)[0]; v != "" {
			fmt.Fprintf(&b, " %s;", v)
		}
	}
	b.WriteString("\n\n| what | target | who | figure | ratio to Shoal | target met |\n|---|---|---|---|---|---|\n")
	own := map[string]float64{}
	others := map[string]map[string]float64{}
	for _, f := range r.figures {
		if ours(f.who) {
			own[f.what] = f.value
			continue
		}
		if others[f.what] == nil {
			others[f.what] = map[string]float64{}
		}
		others[f.what][f.who] = f.value
	}
	last := ""
	for _, f := range r.figures {
		what, target := f.what, f.target
		if what == last {
			what, target = "", ""
		}
		last = f.what
		ratio := ""
		if base := own[f.what]; base > 0 && !ours(f.who) {
			ratio = fmt.Sprintf("%.2f", f.value/base)
		}
		met := ""
		if ours(f.who) {
			met = verdict(f, others[f.what])
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", what, target, f.who, f.text, ratio, met)
	}
	b.WriteString(phasesOf(r.phases))
	b.WriteString(restTable(r.rest))
	if len(r.notes) > 0 {
		b.WriteString("\nNotes:\n")
		for _, n := range r.notes {
			fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(n, "\n", " "))
		}
	}
	return b.String()
}

func oneLine(name string, args ...string) string {
	out, _ := exec.Command(name, args...).Output()
	return strings.TrimSpace(string(out))
}
