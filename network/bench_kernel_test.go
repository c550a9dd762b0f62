//go:build kernel

package network

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/cputime"
	"github.com/shoalhq/shoal/model"
)

// What one container costs, step by step, in processor time, the kernel's included: a busy machine has no part in it. The
// numbers are printed; the limits are wide beside those of docs/network.md.
func TestCost(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.m.Create(ctx, model.NetworkSpec{Name: "a", IPv4: true})
	must(t, err)
	for what, c := range map[string]struct {
		net   string
		ports []string
		limit time.Duration
	}{"bridge": {"bridge", nil, 6 * time.Millisecond}, "bridge, port": {"bridge", []string{"8080:80"}, 6 * time.Millisecond}, "own network": {"a", nil, 6 * time.Millisecond}} {
		var ns, attach, detach []time.Duration
		for range 30 {
			r := w.request("c", map[string]model.EndpointSpec{c.net: {}}, c.ports...)
			start := cputime.Used()
			r.Namespace, err = w.m.Namespace(ctx, nil)
			must(t, err)
			ns = append(ns, cputime.Used()-start)
			start = cputime.Used()
			_, err = w.m.Attach(ctx, r)
			must(t, err)
			attach = append(attach, cputime.Used()-start)
			start = cputime.Used()
			must(t, w.m.Detach(ctx, r.ContainerID, ""))
			detach = append(detach, cputime.Used()-start)
			r.Namespace.Close()
			w.m.bg.Wait()
		}
		// Of the quicker ones: collections of garbage fall into others.
		quick := func(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/6] }
		t.Logf("%s: namespace %v, attach %v, detach %v", what, quick(ns), quick(attach), quick(detach))
		if quick(attach) > c.limit || quick(detach) > c.limit {
			t.Errorf("%s takes too long", what)
		}
	}
}
