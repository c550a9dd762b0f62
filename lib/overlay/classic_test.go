package overlay

import (
	"strings"
	"testing"
)

func TestBefore(t *testing.T) {
	for release, want := range map[string]bool{"6.1.0-56-cloud-amd64": true, "5.15.0": true, "6.8-rc1": false, "6.18.44-fc": false, "7.0": false, "6.7": true} {
		if got := before(release, 6, 8); got != want {
			t.Errorf("%s: %v", release, got)
		}
	}
}

func TestClassicData(t *testing.T) {
	d := Dirs{Lower: []string{"/a/b/2/f:s", "/a/b/1/fs", "/a/c"}, Upper: "/x,y/up", Work: "/x/work", Options: []string{"userxattr"}}
	if got := common(d.Lower); got != "/a" {
		t.Error(got)
	}
	if got := common([]string{"/a"}); got != "/" {
		t.Error(got)
	}
	got, err := classicData(d, "/a")
	if want := `lowerdir=b/2/f\:s:b/1/fs:c,upperdir=/x\,y/up,workdir=/x/work,userxattr`; got != want || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	many := Dirs{Lower: []string{"/" + strings.Repeat("x", 100<<10)}}
	if _, err := classicData(many, "/"); err == nil {
		t.Error("a text longer than a page was made")
	}
}
