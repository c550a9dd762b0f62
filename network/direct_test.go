package network

import (
	"strings"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

// What a network of the drivers macvlan and ipvlan makes of its options, or why not.
func TestDirectOptions(t *testing.T) {
	opts := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, c := range []struct {
		driver   string
		internal bool
		options  map[string]string
		parent   string // "dm-": one of ours, without a way out
		mode     string
		says     string
	}{
		{driver: model.DriverIPvlan, options: opts("parent", "eth0"), parent: "eth0"},
		{driver: model.DriverIPvlan, options: opts("parent", "eth0.20", "ipvlan_mode", "l3", "ipvlan_flag", "private"), parent: "eth0.20", mode: "l3"},
		{driver: model.DriverIPvlan, options: opts("parent", "eth0", "ipvlan_mode", "l3s"), internal: true, parent: "dm-", mode: "l3s"},
		{driver: model.DriverIPvlan, parent: "dm-"},
		{driver: model.DriverIPvlan, options: opts("ipvlan_mode", "l4"), says: "want one of l2, l3, l3s"},
		{driver: model.DriverIPvlan, options: opts("ipvlan_flag", "odd"), says: "want one of bridge, private, vepa"},
		{driver: model.DriverIPvlan, options: opts("parent", "a name with blanks"), says: "want the name of a link"},
		{driver: model.DriverMacvlan, options: opts("parent", "eth0", "macvlan_mode", "vepa"), parent: "eth0", mode: "vepa"},
		{driver: model.DriverMacvlan, options: opts("macvlan_mode", "odd"), says: "want one of bridge, private, vepa, passthru"},
	} {
		n := model.Network{ID: strings.Repeat("ab", 32), NetworkSpec: model.NetworkSpec{Name: "n", Driver: c.driver, Internal: c.internal, Options: c.options}}
		err := directOptions(&n.NetworkSpec)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: %v, want %q", c.options, err, c.says)
			}
			continue
		}
		d := directOf(&n)
		if err != nil || d.Kind != c.driver || !strings.HasPrefix(d.Parent, c.parent) || d.Mode != c.mode || len(d.Parent) > 15 {
			t.Errorf("%v: %+v %v", c.options, d, err)
		}
	}
}

// The mode belongs to the parent: a second network with another one would change the first.
func TestOneModeOnAParent(t *testing.T) {
	m := fakeManager(t, t.TempDir(), kernel.NewFake())
	create := func(name, parent, mode string) error {
		options := map[string]string{model.OptParent: parent}
		if mode != "" {
			options[model.OptIPvlanMode] = mode
		}
		_, err := m.Create(t.Context(), model.NetworkSpec{Name: name, Driver: model.DriverIPvlan, IPv4: true, Options: options})
		return err
	}
	for _, c := range []struct{ name, parent, mode, says string }{
		{"first", "eth0", "", ""}, {"same", "eth0", "l2", ""}, {"other", "eth0", "l3", "has l2 bridge on eth0, and l3 bridge was asked for"}, {"elsewhere", "eth1", "l3", ""},
	} {
		err := create(c.name, c.parent, c.mode)
		if (err == nil) != (c.says == "") || err != nil && (!errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := m.Remove(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), "same"); err != nil {
		t.Fatal(err)
	}
	if err := create("other", "eth0", "l3"); err != nil {
		t.Error(err)
	}
}
