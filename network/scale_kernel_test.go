//go:build kernel

package network

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/cputime"
	"github.com/shoalhq/shoal/model"
)

// The last container costs what the first one did: 250 containers with 8 published ports each. The cost is processor time, the
// kernel's included: a machine that others load while the test goes on makes only the clock's longer.
func TestScale(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "a", IPv4: true})
	must(t, err)
	containers, portsEach := 250, 8
	if os.Getenv("SHOAL_LONG") != "" {
		containers, portsEach = 1000, 2
	}
	var attach, detach []time.Duration
	var boxes []*box
	for i := range containers {
		var ports []string
		for p := range portsEach {
			ports = append(ports, fmt.Sprintf("%d:80", 20000+i*portsEach+p))
		}
		r := w.request(fmt.Sprint("c", i), map[string]model.EndpointSpec{"a": {}}, ports...)
		r.Namespace, err = w.m.Namespace(context.Background(), nil)
		must(t, err)
		start := cputime.Used()
		at, err := w.m.Attach(context.Background(), r)
		must(t, err)
		attach = append(attach, cputime.Used()-start)
		boxes = append(boxes, &box{w: w, id: r.ContainerID, ns: r.Namespace, at: at})
	}
	serve(t, boxes[containers-1].ns, 80, "last")
	expect(t, "the last port", call(t, w.outside, "tcp", fmt.Sprintf("198.51.100.1:%d", 20000+containers*portsEach-1)), "last 198.51.100.2")
	start := time.Now()
	must(t, w.m.rebuildRules())
	t.Log("whole table", time.Since(start))
	start = time.Now()
	must(t, w.m.Audit(context.Background()))
	t.Log("audit", time.Since(start))
	for _, b := range boxes {
		start := cputime.Used()
		must(t, w.m.Detach(context.Background(), b.id, ""))
		detach = append(detach, cputime.Used()-start)
		b.ns.Close()
	}
	quick := func(d []time.Duration) time.Duration { // of the quicker half: collections of garbage fall into others
		d = slices.Sorted(slices.Values(d))
		return d[len(d)/4]
	}
	t.Logf("attach: first 50 %v, last 50 %v", quick(attach[:50]), quick(attach[containers-50:]))
	t.Logf("detach: first 50 %v, last 50 %v", quick(detach[:50]), quick(detach[containers-50:]))
	if first, last := quick(attach[:50]), quick(attach[containers-50:]); last > 3*first+time.Millisecond {
		t.Errorf("the last containers took %v to attach, the first %v", last, first)
	}
	if first, last := quick(detach[:50]), quick(detach[containers-50:]); last > 3*first+time.Millisecond {
		t.Errorf("the last containers took %v to detach, the first %v", last, first)
	}
	w.m.bg.Wait()
	if _, plugs, _ := w.m.k.Links("sv"); len(plugs) > 0 || w.m.holder.Len() != 0 || len(w.m.want[("any4")]) != 0 {
		t.Errorf("left over: %d links, %d held ports, %d rules", len(plugs), w.m.holder.Len(), len(w.m.want["any4"]))
	}
}

// One container with 2,000 ports: one transaction, and the next container costs what the first did.
func TestManyPortsOfOne(t *testing.T) {
	w := newWorld(t, nil)
	var ports []string
	for i := range 2000 {
		ports = append(ports, fmt.Sprintf("%d:80", 10000+i))
	}
	attach := func() time.Duration {
		var d []time.Duration
		for range 9 {
			start := cputime.Used()
			b := w.box(w.request("small", nil, "0:80"))
			d = append(d, cputime.Used()-start)
			must(t, w.m.Detach(context.Background(), b.id, ""))
		}
		return slices.Min(d) // without a collection of garbage
	}
	before := attach()
	start := time.Now()
	b := w.box(w.request("large", nil, ports...))
	t.Log("attach with 2,000 ports", time.Since(start))
	serve(t, b.ns, 80, "large")
	expect(t, "the last port", call(t, w.outside, "tcp", "198.51.100.1:11999"), "large 198.51.100.2")
	must(t, w.m.rebuildRules())
	after := attach()
	t.Log("attach of one with one port: before", before, "after", after)
	if after > 3*before+2*time.Millisecond {
		t.Errorf("with 2,000 ports in place an attach takes %v, without %v", after, before)
	}
	start = time.Now()
	must(t, w.m.Detach(context.Background(), b.id, ""))
	t.Log("detach with 2,000 ports", time.Since(start))
}
