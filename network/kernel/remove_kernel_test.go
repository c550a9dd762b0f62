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

// pair makes the two ends of a link, up.
func pair(t *testing.T) (index int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "rm0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "rm1"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rm1", "rm0"} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			index, err = l.Attrs().Index, netlink.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return index
}

// A removal is over when nobody sees the link any more, not when the kernel has answered.
func TestRemoveLinkDoesNotWaitForTheKernelsAnswer(t *testing.T) {
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
			pair(t)
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

// Others remove the same link at the same time, as the kernel does with a namespace's end: whoever then gets the name is safe.
func TestRemoveLinkBesideAnother(t *testing.T) {
	for range 30 {
		index := pair(t)
		other, err := dialRTNL()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			defer other.close()
			done <- other.do(request{typ: unix.RTM_DELLINK, body: linkBody(int32(index), 0, 0).b, tolerate: unix.ENODEV})
		}()
		if err := removeLink("rm0"); err != nil {
			t.Error(err)
		}
		next := pair(t)
		if err := <-done; err != nil {
			t.Error(err)
		}
		for range cap(removing) { // until no request is on its way
			removing <- struct{}{}
		}
		for range cap(removing) {
			<-removing
		}
		if l, err := netlink.LinkByName("rm0"); err != nil || l.Attrs().Index != next {
			t.Fatalf("the link that was made after the removal: %v", err)
		}
		if err := removeLink("rm0"); err != nil {
			t.Error(err)
		}
	}
}
