package volume

import (
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// A server on the loopback that accepts connections.
func listen(t *testing.T) (port string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestRemoteTrouble(t *testing.T) {
	v := open(t, t.TempDir())
	var (
		mu     sync.Mutex // the mount that hangs outlives the call that asked for it
		result error
		got    string
		hang   = make(chan struct{})
	)
	answer := func(with error) {
		mu.Lock()
		defer mu.Unlock()
		result, got = with, ""
	}
	mounted := func() string {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
	v.mount = func(device, _, kind string, _ uintptr, data string) error {
		mu.Lock()
		got = kind + " " + device + " " + data
		with := result
		mu.Unlock()
		if with == nil {
			<-hang
		}
		return with
	}
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, closed, _ := net.SplitHostPort(refused.Addr().String())
	refused.Close()
	open := listen(t)
	for i, c := range []struct {
		kind, device, o string
		result          error
		errKind         errs.Kind
		says, mounts    string
	}{
		{"nfs", ":/x", "addr=127.0.0.1,port=" + closed, unix.EINVAL, errs.Unavailable, "nothing listens at 127.0.0.1:" + closed, ""},
		{"nfs4", "localhost:/x", "rw,vers=4.2,port=" + open, unix.EACCES, errs.Forbidden, "exports", "nfs4 localhost:/x vers=4.2,port=" + open + ",addr="},
		{"nfs", ":/x", "addr=127.0.0.1,proto=udp", unix.ENODEV, errs.Unsupported, "no such filesystem", "nfs :/x proto=udp,addr=127.0.0.1"},
		{"nfs", ":/x", "addr=does-not-exist.invalid", nil, errs.Unavailable, "has no address", ""},
		{"nfs", ":/x", "", nil, errs.Invalid, "names no server", ""},
		{"nfs", ":/x", "addr=127.0.0.1,port=" + open, nil, errs.Unavailable, "within 200ms", "nfs :/x port=" + open},
		{"cifs", "//127.0.0.1/share", "username=u,password=secret,port=" + open, unix.EINVAL, errs.Invalid, "password=***", "cifs //127.0.0.1/share username=u,password=secret,port=" + open + ",addr=127.0.0.1"},
		{"cifs", "//127.0.0.1/share", "port=" + closed, unix.EINVAL, errs.Unavailable, "nothing listens", ""},
	} {
		name := "vol" + string(rune('a'+i))
		make1(t, v, model.Volume{Name: name, Options: map[string]string{"type": c.kind, "device": c.device, "o": c.o}})
		answer(c.result)
		if v.patience = mountPatience; strings.Contains(c.says, "200ms") {
			v.patience = 200 * time.Millisecond
		}
		_, err := v.Mount(t.Context(), name, "c1")
		if err == nil || !strings.Contains(err.Error(), c.says) || c.errKind != errs.Forbidden && c.errKind != errs.Invalid && !errs.Is(err, c.errKind) ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%s %s %s: %v", c.kind, c.device, c.o, err)
		}
		if got := mounted(); !strings.HasPrefix(got, c.mounts) {
			t.Errorf("%s %s %s: mounted %q, want %q", c.kind, c.device, c.o, got, c.mounts)
		}
		if e := v.all[name]; len(e.mounted) > 0 {
			t.Error("noted as mounted")
		}
	}
	// As long as the kernel has not given up, there is no second try.
	if _, err := v.Mount(t.Context(), "volf", "c1"); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "earlier mount") {
		t.Error(err)
	}
	close(hang)
	<-v.all["volf"].pending
	answer(os.ErrPermission)
	if _, err := v.Mount(t.Context(), "volf", "c1"); err == nil || strings.Contains(err.Error(), "earlier mount") {
		t.Error(err)
	}
}

func TestNewestVersion(t *testing.T) {
	for _, c := range []struct {
		kind, data string
		server     map[string]error // what it says to each version; what is not there is mounted
		tried      string
		want       error
	}{
		{"nfs", "addr=a", nil, "4.2", nil},
		{"nfs", "addr=a", map[string]error{"4.2": unix.EPROTONOSUPPORT, "4.1": unix.EPROTONOSUPPORT}, "4.2 4.1 4.0", nil},
		{"nfs", "addr=a", map[string]error{"4.2": unix.ENOENT, "4.1": unix.ENOENT, "4.0": unix.ENOENT}, "4.2 4.1 4.0 3", nil},
		{"nfs", "addr=a", map[string]error{"4.2": unix.ENOENT, "4.1": unix.ENOENT, "4.0": unix.ENOENT, "3": unix.ECONNREFUSED}, "4.2 4.1 4.0 3", unix.ENOENT},
		{"nfs", "addr=a", map[string]error{"4.2": unix.EPROTONOSUPPORT, "4.1": unix.EPROTONOSUPPORT, "4.0": unix.EPROTONOSUPPORT, "3": unix.EACCES}, "4.2 4.1 4.0 3", unix.EACCES},
		{"nfs", "addr=a", map[string]error{"4.2": unix.EACCES}, "4.2", unix.EACCES},
		{"nfs4", "addr=a", map[string]error{"4.2": unix.ENOENT, "4.1": unix.ENOENT, "4.0": unix.ENOENT}, "4.2 4.1 4.0", unix.ENOENT},
		{"nfs", "nfsvers=3,addr=a", nil, "", nil},
		{"nfs", "nolock,addr=a", nil, "", nil},
		{"nfs", "proto=udp,addr=a", nil, "", nil},
		{"nfs4", "v4.1,addr=a", nil, "", nil},
		{"cifs", "addr=a", nil, "", nil},
	} {
		var tried []string
		err := newest(nfsVersions(c.kind, c.data), func(end string) error {
			version := strings.TrimPrefix(end, ",vers=")
			tried = append(tried, version)
			return c.server[version]
		})
		if err != c.want || strings.Join(tried, " ") != c.tried {
			t.Errorf("%s %s: tried %q, %v", c.kind, c.data, tried, err)
		}
	}
}
