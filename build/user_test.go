package build

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat/openattest"
)

// TestUserOf: users are found in the root filesystem only, and what is no file there is not opened: a pipe would hold up the
// build for ever.
func TestUserOf(t *testing.T) {
	openattest.Need(t)
	root, hung := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.Mkdir(root+"/etc", 0o755), os.Mkdir(hung+"/etc", 0o755),
		os.WriteFile(root+"/users", []byte("root:x:0:0::/:\nme:x:7:8::/:\n"), 0o644), os.Symlink("/users", root+"/etc/passwd"),
		os.WriteFile(root+"/etc/group", []byte("mine:x:8:\nmore:x:9:me\n"), 0o644),
		unix.Mkfifo(hung+"/etc/passwd", 0o666), unix.Mkfifo(hung+"/etc/group", 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if u, err := userOf(root, "me"); err != nil || u.UID != 7 || u.GID != 8 || len(u.AdditionalGids) != 1 || u.AdditionalGids[0] != 9 {
		t.Errorf("me: %+v %v", u, err)
	}
	if u, err := userOf(root, "3:4"); err != nil || u.UID != 3 || u.GID != 4 {
		t.Errorf("numbers: %+v %v", u, err)
	}
	if _, err := userOf(root, "nobody"); err == nil {
		t.Error("an unknown user is found")
	}
	if u, err := userOf(hung, ""); err != nil || u.UID != 0 || u.GID != 0 {
		t.Errorf("pipes: %+v %v", u, err)
	}
	if u, err := userOf(hung, "5"); err != nil || u.UID != 5 {
		t.Errorf("pipes and a number: %+v %v", u, err)
	}
}
