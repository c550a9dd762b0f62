package main

import (
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	before := usage{1: {"shoald", 1, 10, 9, 100, 1000}, 2: {"old", 1, 1, 1, 1, 1}}
	now := usage{1: {"shoald", 1, 20, 18, 105, 1500}, 2: {"sup", 1, 2, 1, 3, 30}, 3: {"sup", 1, 2, 2, 4, 40}}
	used := now.since(before)
	if got, want := used.sum(), (process{"", 3, 24, 21, 12, 570}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := used.programs(); len(got) != 2 || got[0] != (process{"shoald", 1, 20, 18, 5, 500}) || got[1] != (process{"sup", 2, 4, 3, 7, 70}) {
		t.Errorf("%+v", got)
	}
	table := restTable([]restRow{{"shoal", 20, 60, process{"sup", 20, 40e6, 20e6, 30, 6e6}}})
	if !strings.HasSuffix(table, "| shoal | 20 | sup | 20 | 0.500 | 0.1000 | 40.0 | 20.0 |\n") || restTable(nil) != "" {
		t.Error(table)
	}
}
