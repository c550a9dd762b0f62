//go:build kernel

package kernel

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A removal is over when nobody sees the link any more, not when the kernel has answered.
func TestRemoveLinkDoesNotWaitForTheKernelsAnswer(t *testing.T) {
	pair := func() {
		t.Helper()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "rm0"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "rm1"}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"rm0", "rm1"} {
			l, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetUp(l)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	answered := func() error {
		c, err := dialRTNL()
		if err != nil {
			return err
		}
		defer c.close()
		return c.do(request{typ: unix.RTM_DELLINK, body: linkBody(0, 0, 0).str(unix.IFLA_IFNAME, "rm0").b})
	}
	took := map[string][]time.Duration{}
	for range 9 {
		for how, remove := range map[string]func() error{"answered": answered, "announced": func() error { return removeLink("rm0") }} {
			pair()
			start := time.Now()
			if err := remove(); err != nil {
				t.Fatal(err)
			}
			took[how] = append(took[how], time.Since(start))
			for _, name := range []string{"rm0", "rm1"} {
				var gone netlink.LinkNotFoundError
				if _, err := netlink.LinkByName(name); !errors.As(err, &gone) {
					t.Fatalf("%s is there after its removal: %v", name, err)
				}
			}
		}
	}
	a, b := slices.Sorted(slices.Values(took["announced"]))[4], slices.Sorted(slices.Values(took["answered"]))[4]
	t.Logf("announced after %v, answered after %v", a, b)
	if a > b {
		t.Errorf("a removal took %v, the kernel's answer %v", a, b)
	}
}

func TestRemoveLinkThatCannotBe(t *testing.T) {
	if err := removeLink("nothere0"); err != nil {
		t.Errorf("a link that is not there: %v", err)
	}
	if err := removeLink("lo"); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("the loopback: %v, want the kernel's refusal", err)
	}
	if err := goneByNow("nothere0"); err != nil {
		t.Error(err)
	}
	if err := goneByNow("lo"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link that stayed: %v", err)
	}
}
