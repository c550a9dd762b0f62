//go:build kernel

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/test/world"
)

var (
	leakRounds = flag.Int("leak-rounds", 60, "networks and containers that TestNetworkLeaks makes and removes")
	leakSeed   = flag.Uint64("leak-seed", 0, "when TestNetworkLeaks kills the daemon; 0 chooses")
)

// Networks and containers come and go, four at a time, while the daemon is killed at random points. In the end there is
// nothing of them: no links, routes, elements of the packet filter, ports, records, and no address that nobody has.
func TestNetworkLeaks(t *testing.T) {
	w := newNetWorld(t)
	seed := *leakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	const hosts = 13 // of a /28 without network, broadcast and gateway
	w.docker("network", "create", "--subnet", "10.44.0.0/28", "small")
	w.docker("run", "--rm", "--network", "small", "-p", "8099:80", "whoami", "--help")
	before := w.traces(t)
	fds := world.UsageOf(w.DaemonPid()).Fds

	var next, started atomic.Int64
	var alive sync.RWMutex // the daemon's end is waited for before anybody asks it again
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(*leakRounds) {
					return
				}
				alive.RLock()
				if w.leakRound(n) {
					started.Add(1)
				}
				alive.RUnlock()
			}
		})
	}
	kills := 0
	for done := make(chan struct{}); ; {
		if kills == 0 {
			go func() { wg.Wait(); close(done) }()
		}
		select {
		case <-done:
		case <-time.After(time.Duration(300+random.IntN(700)) * time.Millisecond):
			waits := make(chan struct{})
			go func() { alive.Lock(); close(waits) }() // no round begins any more; those that have begun meet the end
			w.KillDaemon()
			<-waits
			w.StartDaemon()
			w.removeAll(t, "small") // what was cut off, or the pools and ports run out
			alive.Unlock()
			kills++
			continue
		}
		break
	}
	t.Logf("%d rounds, %d of them with a container that ran, %d kills", *leakRounds, started.Load(), kills)
	if started.Load() < int64(*leakRounds-6*kills) {
		t.Error("too few containers ran: something is in the way")
	}
	w.removeAll(t, "small")
	var left []string
	if !world.Await(func() bool { left = without(w.traces(t), before); return len(left) == 0 }) {
		t.Errorf("left over:\n%s", strings.Join(left, "\n"))
	}
	if now := world.UsageOf(w.DaemonPid()).Fds; now > fds+8 {
		t.Errorf("%d open files of the daemon, before %d", now, fds)
	}
	// Every address can be had, and every port.
	for i := range hosts {
		a := w.API("POST", fmt.Sprintf("/containers/create?name=full%d", i), leakBody("small", 8100+i))
		if a.Code == 201 {
			a = w.API("POST", fmt.Sprintf("/containers/full%d/start", i), nil)
		}
		if a.Code != 204 {
			t.Fatalf("container %d of %d: %d %s", i, hosts, a.Code, a.Body)
		}
	}
	w.removeAll(t)
}

func leakBody(network string, port int) map[string]any {
	return map[string]any{"Image": "whoami", "HostConfig": map[string]any{"NetworkMode": network,
		"PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": fmt.Sprint(port)}}}}}
}

// leakRound does all that it can while the daemon may die at any point.
func (w *netWorld) leakRound(n int64) (started bool) {
	network, name := fmt.Sprintf("net%d", n), fmt.Sprintf("c%d", n)
	w.API("POST", "/networks/create", map[string]any{"Name": network, "EnableIPv6": n%3 == 0})
	w.API("POST", "/containers/create?name="+name, leakBody(network, int(8100+n%50)))
	started = w.API("POST", "/containers/"+name+"/start", nil).Code == 204
	w.API("POST", "/networks/small/connect", map[string]any{"Container": name})
	if n%2 == 0 {
		w.API("POST", "/networks/"+network+"/disconnect", map[string]any{"Container": name, "Force": true})
	}
	w.API("DELETE", "/containers/"+name+"?force=1", nil)
	w.API("DELETE", "/networks/"+network, nil)
	return started
}

// removeAll removes all containers and networks but some, as their owner would.
func (w *netWorld) removeAll(t *testing.T, but ...string) {
	t.Helper()
	if ids := strings.Fields(w.docker("ps", "-aq")); len(ids) > 0 {
		w.docker(append([]string{"rm", "-f"}, ids...)...)
	}
	for _, name := range strings.Fields(w.docker("network", "ls", "--format", "{{.Name}}", "--filter", "type=custom")) {
		if !slices.Contains(but, name) {
			w.docker("network", "rm", name)
		}
	}
}

// traces lists what networks leave on a host: links, addresses, routes, rules, records.
func (w *netWorld) traces(t *testing.T) (out []string) {
	t.Helper()
	w.InNet(func() {
		links, err := netlink.LinkList()
		if err != nil {
			t.Error(err)
		}
		for _, l := range links {
			out = append(out, "link "+l.Attrs().Name)
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, 0)
		if err != nil {
			t.Error(err)
		}
		for _, r := range routes {
			if r.Dst != nil && !r.Dst.IP.IsMulticast() && !r.Dst.IP.IsLinkLocalUnicast() {
				out = append(out, "route "+r.Dst.String())
			}
		}
		nft, err := w.Command("/usr/sbin/nft", "list", "table", "inet", "shoal").CombinedOutput()
		if err != nil {
			t.Skipf("no nft on this machine: %v %s", err, nft)
		}
		_, sets := parts(string(nft))
		out = append(out, sets...)
	})
	return out
}

func without(list, known []string) (rest []string) {
	for _, s := range list {
		if !slices.Contains(known, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
