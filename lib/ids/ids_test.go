package ids

import "testing"

func TestNew(t *testing.T) {
	a, b := New(), New()
	if !Valid(a) || a == b {
		t.Fatalf("%q %q", a, b)
	}
	if Short(a) != a[:12] || Short("sha256:"+a) != a[:12] || Short("abc") != "abc" {
		t.Fatal("short")
	}
	if Valid("xyz") || Valid(a[:63]+"G") {
		t.Fatal("valid")
	}
}
