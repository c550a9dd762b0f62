package kernel

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/network/plan"
)

// What the kernel is asked for, for every mode and flag of ipvlan and macvlan (linux/if_link.h): kernels without them
// cannot be asked.
func TestDirectRequests(t *testing.T) {
	for _, c := range []struct {
		d     plan.Direct
		mode  []byte
		flags []byte
	}{
		{plan.Direct{Kind: "ipvlan"}, []byte{0, 0}, []byte{0, 0}},
		{plan.Direct{Kind: "ipvlan", Mode: "l2", Flag: "private"}, []byte{0, 0}, []byte{1, 0}},
		{plan.Direct{Kind: "ipvlan", Mode: "l3", Flag: "vepa"}, []byte{1, 0}, []byte{2, 0}},
		{plan.Direct{Kind: "ipvlan", Mode: "l3s", Flag: "bridge"}, []byte{2, 0}, []byte{0, 0}},
		{plan.Direct{Kind: "macvlan"}, []byte{4, 0, 0, 0}, nil},
		{plan.Direct{Kind: "macvlan", Mode: "private"}, []byte{1, 0, 0, 0}, nil},
		{plan.Direct{Kind: "macvlan", Mode: "vepa"}, []byte{2, 0, 0, 0}, nil},
		{plan.Direct{Kind: "macvlan", Mode: "passthru"}, []byte{8, 0, 0, 0}, nil},
	} {
		b := directBody(c.d, "eth0", 7, nil).b[unix.SizeofIfInfomsg:]
		parent, _ := attrUint32(b, unix.IFLA_LINK)
		info := attrBytes(b, unix.IFLA_LINKINFO)
		data := attrBytes(info, unix.IFLA_INFO_DATA)
		if attrString(b, unix.IFLA_IFNAME) != "eth0" || parent != 7 || attrString(info, unix.IFLA_INFO_KIND) != c.d.Kind ||
			!same(attrBytes(data, infoMode), c.mode) || !same(attrBytes(data, infoFlags), c.flags) {
			t.Errorf("%+v: %x", c.d, b)
		}
		if routed := c.d.Kind == "ipvlan" && (c.d.Mode == "l3" || c.d.Mode == "l3s"); c.d.Routed() != routed {
			t.Errorf("%+v: routed %t", c.d, c.d.Routed())
		}
	}
}

// same compares numbers that the machine has in its own order.
func same(have, little []byte) bool {
	if len(have) != len(little) {
		return false
	}
	switch len(have) {
	case 2:
		return native.Uint16(have) == uint16(little[0])
	case 4:
		return native.Uint32(have) == uint32(little[0])
	}
	return true
}
