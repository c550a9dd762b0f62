package namespaces

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

func TestMessagesRoundTrip(t *testing.T) {
	a, b, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	big := bytes.Repeat([]byte("x"), 1<<20)
	go func() {
		Send(int(a.Fd()), Message{Kind: KindFramed, Arg: 7, Content: []byte("hello"), Files: []int{int(a.Fd())}})
		Send(int(a.Fd()), Message{Kind: KindFramed + 1, Content: big})
		a.Close()
	}()
	m, err := Receive(int(b.Fd()))
	if err != nil || m.Kind != KindFramed || m.Arg != 7 || string(m.Content) != "hello" || len(m.Files) != 1 {
		t.Fatalf("got %+v, %v", m, err)
	}
	os.NewFile(uintptr(m.Files[0]), "a").Close()
	if m, err = Receive(int(b.Fd())); err != nil || !bytes.Equal(m.Content, big) {
		t.Fatalf("got %d bytes, %v", len(m.Content), err)
	}
	if _, err = Receive(int(b.Fd())); err != io.EOF {
		t.Errorf("got %v at the end", err)
	}
}

func TestReceiveRefusesHugeAndCut(t *testing.T) {
	for _, text := range []string{"\x10\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\x0f", "\x10\x00\x00", "\x10\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00ab"} {
		a, b, err := SocketPair()
		if err != nil {
			t.Fatal(err)
		}
		unix.Write(int(a.Fd()), []byte(text))
		a.Close()
		if _, err := Receive(int(b.Fd())); err == nil || err == io.EOF {
			t.Errorf("%q: got %v", text, err)
		}
		b.Close()
	}
}

func TestOpenChecksTheType(t *testing.T) {
	j, err := Open("network", "/proc/self/ns/net")
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("an emulated processor, without the calls that tell a namespace's type")
	}
	if err != nil || j.Flag != unix.CLONE_NEWNET {
		t.Fatal(err)
	}
	j.File.Close()
	if _, err := Open("network", "/proc/self/ns/uts"); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "is a uts namespace") {
		t.Errorf("got %v", err)
	}
	if _, err := Open("network", "/proc/self/stat"); !errs.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
	if flags, err := OfProcess(os.Getpid()); err != nil || flags != 0 {
		t.Errorf("own namespaces differ: %#x, %v", flags, err)
	}
}
