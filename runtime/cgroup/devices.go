package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Device access bits, with the kernel's BPF_DEVCG_ACC_* values.
const (
	accMknod = 1 << iota
	accRead
	accWrite
	accAll = accMknod | accRead | accWrite
)

// anyNumber is a wildcard major or minor.
const anyNumber = -1

// deviceRule is one rule: the later one wins where two meet.
type deviceRule struct {
	allow        bool
	kind         byte // 'c', 'b', or 'a' for both
	major, minor int64
	access       uint8
}

// defaultDevices are allowed in every container, as the runtime specification and every runtime have it: making any
// node (harmless: opening is another right), the standard devices, terminals.
var defaultDevices = [...]deviceRule{
	{true, 'c', anyNumber, anyNumber, accMknod},
	{true, 'b', anyNumber, anyNumber, accMknod},
	{true, 'c', 1, 3, accAll},           // null
	{true, 'c', 1, 8, accAll},           // random
	{true, 'c', 1, 7, accAll},           // full
	{true, 'c', 5, 0, accAll},           // tty
	{true, 'c', 1, 5, accAll},           // zero
	{true, 'c', 1, 9, accAll},           // urandom
	{true, 'c', 136, anyNumber, accAll}, // pts/*
	{true, 'c', 5, 2, accAll},           // ptmx
}

// deviceRules reads the specification's list, in front of it "deny all", behind it the defaults.
func deviceRules(list []specs.LinuxDeviceCgroup) ([]deviceRule, error) {
	rules := make([]deviceRule, 0, len(list)+len(defaultDevices))
	for i, d := range list {
		r, err := deviceRuleOf(d)
		if err != nil {
			return nil, errs.Wrap(err, "resources.devices[%d]", i)
		}
		rules = append(rules, r)
	}
	return append(rules, defaultDevices[:]...), nil
}

func deviceRuleOf(d specs.LinuxDeviceCgroup) (deviceRule, error) {
	r := deviceRule{allow: d.Allow, major: anyNumber, minor: anyNumber}
	switch d.Type {
	case "", "a":
		r.kind = 'a'
	case "c", "u":
		r.kind = 'c'
	case "b":
		r.kind = 'b'
	default:
		return r, errs.New(errs.Invalid, "device type %q: it is a (all), c or u (character), or b (block)", d.Type)
	}
	number := func(p *int64, what string, into *int64) error {
		if p == nil || *p == anyNumber {
			return nil
		}
		if *p < 0 || *p > 0xffffffff {
			return errs.New(errs.Invalid, "device %s %d: it goes from 0 to 4294967295; leave it out or write -1 for all", what, *p)
		}
		*into = *p
		return nil
	}
	if err := errors.Join(number(d.Major, "major", &r.major), number(d.Minor, "minor", &r.minor)); err != nil {
		return r, err
	}
	for _, c := range d.Access {
		switch c {
		case 'm':
			r.access |= accMknod
		case 'r':
			r.access |= accRead
		case 'w':
			r.access |= accWrite
		default:
			return r, errs.New(errs.Invalid, "device access %q: it is made of r (read), w (write) and m (mknod)", d.Access)
		}
	}
	if r.access == 0 {
		if r.kind != 'a' {
			return r, errs.New(errs.Invalid, "device rule %s without access: write some of rwm", r)
		}
		r.access = accAll
	}
	return r, nil
}

func (r deviceRule) String() string {
	n := func(v int64) string {
		if v == anyNumber {
			return "*"
		}
		return strconv.FormatInt(v, 10)
	}
	return fmt.Sprintf("%c %s:%s %s", r.kind, n(r.major), n(r.minor), accessString(r.access))
}

func accessString(a uint8) string {
	var b []byte
	for i, c := range [...]byte{'m', 'r', 'w'} {
		if a&(1<<i) != 0 {
			b = append(b, c)
		}
	}
	return string(b)
}

// whole says whether the rule speaks of every device and every access.
func (r deviceRule) whole() bool {
	return r.kind == 'a' && r.major == anyNumber && r.minor == anyNumber && r.access == accAll
}

// setDevices brings the device rules into force. fresh: the group has its parent's rules, nothing of its own.
func (m *Manager) setDevices(res *specs.LinuxResources, fresh bool) error {
	var list []specs.LinuxDeviceCgroup
	if res != nil {
		list = res.Devices
	}
	rules, err := deviceRules(list)
	if err != nil {
		return err
	}
	if i := m.host.find("devices"); i >= 0 {
		if m.dirs[i] == "" {
			return nil // best effort: without privilege nobody can make device nodes that work either
		}
		return m.setDevicesV1(m.dirs[i], rules, fresh)
	}
	i := m.host.unified()
	if i < 0 || m.dirs[i] == "" {
		return nil
	}
	err = attachDevices(m.dirs[i], rules)
	if m.bestEffort && notAllowed(err) {
		return nil
	}
	return err
}

// table is what cgroup v1 can hold: a default and exceptions from it.
type table struct {
	allow  bool // the default
	except map[deviceKey]uint8
	order  []deviceKey // in which the rules named the exceptions, so that the kernel's list reads like them
}

type deviceKey struct {
	kind         byte
	major, minor int64
}

// fold turns ordered rules into a table. v1 keeps exceptions in one direction only, so a hole in a wildcard cannot be
// said; such rules are refused, since leaving them out would open what was to be closed.
func fold(rules []deviceRule) (table, error) {
	t := table{except: map[deviceKey]uint8{}}
	for _, r := range rules {
		if r.whole() {
			t = table{allow: r.allow, except: map[deviceKey]uint8{}}
			continue
		}
		kinds := []byte{r.kind}
		if r.kind == 'a' {
			kinds = []byte{'c', 'b'}
		}
		for _, k := range kinds {
			if err := t.fold(deviceKey{k, r.major, r.minor}, r); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}

func (t *table) fold(key deviceKey, r deviceRule) error {
	if r.allow != t.allow {
		if _, again := t.except[key]; !again {
			t.order = append(t.order, key)
		}
		t.except[key] |= r.access
		return nil
	}
	// Back to the default: take it out of the exceptions it is part of.
	for k, access := range t.except {
		if access&r.access == 0 || !k.meets(key) {
			continue
		}
		if !key.covers(k) {
			return errs.New(errs.Unsupported, "device rule %s makes a hole in an earlier rule for %s: cgroup v1 cannot hold that "+
				"(cgroup v2 can): name the devices one by one", r, deviceRule{kind: k.kind, major: k.major, minor: k.minor, access: access})
		}
		if access &^= r.access; access == 0 {
			delete(t.except, k)
		} else {
			t.except[k] = access
		}
	}
	return nil
}

func numberCovers(a, b int64) bool { return a == anyNumber || a == b }
func numberMeets(a, b int64) bool  { return a == anyNumber || b == anyNumber || a == b }

func (k deviceKey) covers(o deviceKey) bool {
	return k.kind == o.kind && numberCovers(k.major, o.major) && numberCovers(k.minor, o.minor)
}

func (k deviceKey) meets(o deviceKey) bool {
	return k.kind == o.kind && numberMeets(k.major, o.major) && numberMeets(k.minor, o.minor)
}

// lines gives the exceptions in the kernel's notation, in a fixed order.
func (t table) lines() []string {
	out := make([]string, 0, len(t.except))
	for k, a := range t.except {
		out = append(out, deviceRule{kind: k.kind, major: k.major, minor: k.minor, access: a}.String())
	}
	sort.Strings(out)
	return out
}

func (m *Manager) setDevicesV1(dir string, rules []deviceRule, fresh bool) error {
	want, err := fold(rules)
	if err != nil {
		return err
	}
	var now table
	switch {
	case !fresh:
		if now, err = readTable(dir); err != nil {
			return err
		}
	case want.allow && len(want.except) == 0:
		return nil // a new group has its parent's rules; allowing all cannot give more than those
	default:
		now = table{allow: !want.allow} // so that the default is written
	}
	add, remove := "devices.allow", "devices.deny"
	if want.allow {
		add, remove = remove, add
	}
	if now.allow != want.allow {
		file := map[bool]string{true: "devices.allow", false: "devices.deny"}[want.allow]
		if err := writeDevices(dir, file, []string{"a"}); err != nil {
			return err
		}
		now = table{allow: want.allow}
	}
	// First add, then remove: nothing the container may use is closed in between.
	var missing, surplus []string
	for i, k := range want.order {
		if more := want.except[k] &^ now.except[k]; more != 0 && !slices.Contains(want.order[:i], k) {
			missing = append(missing, deviceRule{kind: k.kind, major: k.major, minor: k.minor, access: more}.String())
		}
	}
	for k, a := range now.except {
		if less := a &^ want.except[k]; less != 0 {
			surplus = append(surplus, deviceRule{kind: k.kind, major: k.major, minor: k.minor, access: less}.String())
		}
	}
	if err := writeDevices(dir, add, missing); err != nil {
		return err
	}
	return writeDevices(dir, remove, surplus)
}

func writeDevices(dir, file string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	name := filepath.Join(dir, file)
	fd, err := openRetry(name, unix.O_WRONLY|unix.O_CLOEXEC)
	if err != nil {
		return errs.Wrap(err, "open %s", name)
	}
	defer unix.Close(fd)
	for _, l := range lines {
		err := writeFD(fd, l)
		switch {
		case errors.Is(err, unix.EPERM):
			return errs.New(errs.Forbidden, "write %q to %s: %w: the parent group does not allow that device (see its "+
				"devices.list), or this user may not change device rules", l, name, err)
		case errors.Is(err, unix.EINVAL) && l == "a":
			return errs.New(errs.Conflict, "write %q to %s: %w: the group has child groups, so its default cannot be changed", l, name, err)
		case err != nil:
			return errs.Wrap(err, "write %q to %s", l, name)
		}
	}
	return nil
}

// readTable reads devices.list. The kernel shows "a *:* rwm" for the default allow and does not show its exceptions.
func readTable(dir string) (table, error) {
	text, err := readFile(filepath.Join(dir, "devices.list"))
	if err != nil {
		return table{}, errs.Wrap(err, "read the present device rules")
	}
	t := table{except: map[deviceKey]uint8{}}
	for line := range strings.Lines(text) {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ':' || r == '\n' })
		if len(f) != 4 || len(f[0]) != 1 {
			return t, errs.New(errs.Internal, "%s/devices.list holds a line that is not a device rule: %q", dir, line)
		}
		if f[0] == "a" {
			return table{allow: true, except: map[deviceKey]uint8{}}, nil
		}
		k := deviceKey{kind: f[0][0], major: anyNumber, minor: anyNumber}
		if f[1] != "*" {
			k.major, err = strconv.ParseInt(f[1], 10, 64)
		}
		if f[2] != "*" && err == nil {
			k.minor, err = strconv.ParseInt(f[2], 10, 64)
		}
		if err != nil {
			return t, errs.New(errs.Internal, "%s/devices.list holds a line that is not a device rule: %q", dir, line)
		}
		for i, c := range [...]string{"m", "r", "w"} {
			if strings.Contains(f[3], c) {
				t.except[k] |= 1 << i
			}
		}
	}
	return t, nil
}
