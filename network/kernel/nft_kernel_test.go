//go:build kernel

package kernel

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/plan"
)

func TestTable(t *testing.T) {
	n := newNFT("shoal-t")
	ip := netip.MustParseAddr
	rules := plan.Rules{}
	rules.Add(plan.Access{Bridge: "shoal0", ICC: true, V4: plan.FamilyAccess{Masq: true}, V6: plan.FamilyAccess{Masq: true}}.Elems()...)
	rules.Add(plan.Access{Bridge: "br-int", Internal: true}.Elems()...)
	rules.Add(plan.Access{Bridge: "br-snat", V4: plan.FamilyAccess{Snat: ip("192.0.2.9"), Open: true}, V6: plan.FamilyAccess{Routed: true}}.Elems()...)
	for i := range 1000 {
		rules.Add(plan.Forward{Proto: model.TCP, HostIP: ip("0.0.0.0"), HostPort: uint16(20000 + i), Target: ip("172.17.0.2"), ContainerPort: 80}.Elems()...)
	}
	rules.Add(plan.Forward{Proto: model.UDP, HostIP: ip("127.0.0.1"), HostPort: 53, Target: ip("172.17.0.3"), ContainerPort: 5353}.Elems()...)
	rules.Add(plan.Forward{Proto: model.TCP, HostIP: ip("::"), HostPort: 80, Target: ip("fd00::3"), ContainerPort: 8080,
		Sources: []netip.Prefix{netip.MustParsePrefix("fd01::/16")}}.Elems()...)
	rules.Add(plan.Forward{Proto: model.TCP, HostIP: ip("0.0.0.0"), HostPort: 80, Target: ip("172.17.0.3"), ContainerPort: 8080,
		Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}}.Elems()...)
	rules.Add(plan.Opening{Proto: model.TCP, Target: ip("172.17.0.4"), Port: 80}.Elems()...)
	rules.Add(plan.Opening{Proto: model.TCP, Target: ip("fd00::4"), Port: 80, Sources: []netip.Prefix{netip.MustParsePrefix("fd01::/16")}}.Elems()...)
	for range 2 {
		start := time.Now()
		if err := n.rebuild(rules.All()); err != nil {
			t.Fatal(err)
		}
		t.Log("rebuild", time.Since(start))
	}
	have, whole, err := n.read()
	if err != nil || !whole {
		t.Fatal(whole, err)
	}
	if del, add := plan.Diff(have, rules); len(del)+len(add) > 0 {
		t.Fatalf("too much %q, missing %q", del, add)
	}
	for i := range 3 {
		e := plan.Forward{Proto: model.TCP, HostIP: ip("0.0.0.0"), HostPort: uint16(30000 + i), Target: ip("172.17.0.2"), ContainerPort: 80}.Elems()
		start := time.Now()
		if err := n.apply(nil, e); err != nil {
			t.Fatal(err)
		}
		t.Log("add", time.Since(start))
		start = time.Now()
		if err := n.apply(e, nil); err != nil {
			t.Fatal(err)
		}
		t.Log("del", time.Since(start))
	}
	out, err := exec.Command("nft", "list", "table", "inet", "shoal-t").CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	var got strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "tcp . 20") { // the thousand
			got.WriteString(strings.ReplaceAll(line, "shoal-t", "shoal"))
		}
	}
	golden(t, "testdata/table.nft", got.String())
}

// golden compares with a file, or with SHOAL_REWRITE=1 writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("SHOAL_REWRITE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("the table as the nft program sees it is not as in %s (SHOAL_REWRITE=1 writes it): %v\n%s", path, err, got)
	}
}
