package rootfs

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/overlay"
)

func TestParseOptions(t *testing.T) {
	o := parseOptions([]string{"ro", "rw", "nosuid", "rro", "relatime", "noatime", "rbind", "rslave", "size=1k", "tmpcopyup", "sync", "defaults", "silent"})
	if o.set != unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOATIME || o.clear != unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR__ATIME {
		t.Errorf("set %#x, clear %#x", o.set, o.clear)
	}
	if o.recSet != unix.MOUNT_ATTR_RDONLY || !o.bind || !o.recursive || !o.copyUp {
		t.Errorf("%+v", o)
	}
	if !reflect.DeepEqual(o.propagation, []propagation{{unix.MS_SLAVE, true}}) || !reflect.DeepEqual(o.data, []string{"size=1k", "sync"}) {
		t.Errorf("%+v", o)
	}
}

func TestLaterOptionWins(t *testing.T) {
	for _, c := range []struct {
		list       []string
		set, clear uint64
	}{
		{[]string{"rw", "ro"}, unix.MOUNT_ATTR_RDONLY, 0},
		{[]string{"ro", "rw"}, 0, unix.MOUNT_ATTR_RDONLY},
		{[]string{"noatime", "strictatime"}, unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
		{[]string{"strictatime", "relatime"}, 0, unix.MOUNT_ATTR__ATIME},
	} {
		if o := parseOptions(c.list); o.set != c.set || o.clear != c.clear {
			t.Errorf("%v: set %#x clear %#x, want %#x %#x", c.list, o.set, o.clear, c.set, c.clear)
		}
	}
}

func TestBindOf(t *testing.T) {
	if b := BindOf("", []string{"rbind", "rshared", "idmap"}); !b.Bind || !b.Recursive || !b.Shared || b.IDMap != "idmap" {
		t.Errorf("%+v", b)
	}
	if b := BindOf("tmpfs", []string{"rshared"}); b.Bind {
		t.Errorf("%+v", b)
	}
	if b := BindOf("bind", []string{"remount", "ro"}); b.Bind {
		t.Errorf("a remount is not a bind: %+v", b)
	}
}

func TestParseCgroups(t *testing.T) {
	got := parseCgroups("9:name=systemd:/a:b\n1:cpu,cpuacct:/x\n0::/\n")
	want := []hierarchy{{"", "/"}, {"cpu,cpuacct", "/x"}, {"name=systemd", "/a:b"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestOverlayOf(t *testing.T) {
	got := overlayOf([]string{`lowerdir=/a\:b:/c`, "upperdir=/u,workdir=/w", "userxattr"})
	want := overlay.Dirs{Lower: []string{"/a:b", "/c"}, Upper: "/u", Work: "/w", Options: []string{"userxattr"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
