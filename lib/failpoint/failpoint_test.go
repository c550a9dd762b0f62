package failpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestHit(t *testing.T) {
	defer Arm("")
	if err := Arm("a=1*error(boom); b=enospc"); err != nil {
		t.Fatal(err)
	}
	if Hit("a") != nil || Hit("a") == nil || Hit("other") != nil {
		t.Fatal("count")
	}
	if !errors.Is(Hit("b"), syscall.ENOSPC) {
		t.Fatal("enospc")
	}
	Arm("")
	if Hit("a") != nil {
		t.Fatal("still armed")
	}
	if Arm("x") == nil || Arm("x=explode") == nil {
		t.Fatal("accepted nonsense")
	}
}

func TestTell(t *testing.T) {
	defer Arm("")
	file := filepath.Join(t.TempDir(), "told")
	if err := Arm("tell=" + file + ";a=1*error(boom);b=delay(0s)"); err != nil {
		t.Fatal(err)
	}
	Hit("a")
	Hit("other")
	Hit("b")
	Hit("a")
	want := fmt.Sprintf("b %d\na %[1]d\n", os.Getpid())
	if got, _ := os.ReadFile(file); string(got) != want {
		t.Fatalf("told %q, want %q", got, want)
	}
}
