package build

import (
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/google/go-cmp/cmp"
)

func TestDirsOf(t *testing.T) {
	got := dirsOf(mount.Mount{Options: []string{"lowerdir=/s/3/fs:2/fs:1/fs", "upperdir=/s/4/fs", "workdir=/s/4/work", "index=off", "userxattr"}})
	want := overlayDirs{Lower: []string{"/s/3/fs", "/s/2/fs", "/s/1/fs"}, Upper: "/s/4/fs", Work: "/s/4/work", Options: []string{"index=off", "userxattr"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
