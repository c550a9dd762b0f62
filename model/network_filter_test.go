package model

import (
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

func TestNetworkFilter(t *testing.T) {
	now := time.Unix(10000, 0)
	net := Network{ID: "abc", Created: now.Add(-time.Hour), NetworkSpec: NetworkSpec{Name: "front", Driver: "bridge", Scope: "local", Labels: map[string]string{"a": "b"}}}
	for name, tc := range map[string]struct {
		f    Filters
		want bool
	}{
		"none":         {nil, true},
		"name part":    {Filters{"name": {"ron"}}, true},
		"any of":       {Filters{"name": {"x", "fro"}}, true},
		"all keys":     {Filters{"name": {"fro"}, "driver": {"host"}}, false},
		"label":        {Filters{"label": {"a=b", "a"}}, true},
		"label value":  {Filters{"label": {"a=c"}}, false},
		"not label":    {Filters{"label!": {"a"}}, false},
		"custom":       {Filters{"type": {"custom"}}, true},
		"builtin":      {Filters{"type": {"builtin"}}, false},
		"dangling":     {Filters{"dangling": {"true"}}, true},
		"until before": {Filters{"until": {"2h"}}, false},
		"until after":  {Filters{"until": {"30m"}}, true},
		"until stamp":  {Filters{"until": {"9999"}}, true},
	} {
		keep, err := NetworkFilter(tc.f, now, func(string) int { return 0 })
		if err != nil || keep(net) != tc.want {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	for _, bad := range []Filters{{"nonsense": {"x"}}, {"dangling": {"maybe"}}, {"type": {"x"}}, {"until": {"soon"}}} {
		if _, err := NetworkFilter(bad, now, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
