package kernel

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/userns"
	"github.com/shoalhq/shoal/model"
)

const ownNamespace = "/proc/thread-self/ns/net"

// In runs f on a thread that is in the network namespace ns, and brings the thread back. Sockets that f opens stay in
// ns. f must not start goroutines that rely on the namespace.
func In(ns *os.File, f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
	}
	err = f()
	back(home)
	return err
}

// back returns a locked thread to its namespace. A thread that cannot return stays locked: it ends with its goroutine
// instead of serving others in the wrong namespace.
func back(home int) {
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
}

// Namespace makes a network namespace with its loopback up. It lives until the file and everything in it is closed.
// New links have no IPv6 until they are given an address of it.
// With ids it belongs to a user namespace of its own, which userns.Owner gives.
func (k *Real) Namespace(ids *model.IDMaps) (*os.File, error) {
	if ids != nil {
		return mappedNamespace(ids)
	}
	runtime.LockOSThread()
	home, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		if err == unix.ENOSPC {
			return nil, errs.New(errs.Exhausted, "make a network namespace: the limit of network namespaces is reached; raise the sysctl user.max_net_namespaces")
		}
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	defer back(home)
	fd, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the new network namespace: %w", err)
	}
	ns := os.NewFile(uintptr(fd), "netns")
	if err := furnish(); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// furnish makes the thread's new network namespace what containers expect.
func furnish() error {
	setSysctl("net/ipv6/conf/default/disable_ipv6", "1") // absent when the host has no IPv6
	c, err := dialRTNL()
	if err == nil {
		err = c.do(request{what: "bring the loopback up", typ: unix.RTM_NEWLINK, body: linkBody(1, unix.IFF_UP, unix.IFF_UP).b})
		c.close()
	}
	return err
}

func mappedNamespace(ids *model.IDMaps) (*os.File, error) {
	convert := func(list []model.IDMap) (out []syscall.SysProcIDMap) {
		for _, m := range list {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Container), HostID: int(m.Host), Size: int(m.Size)})
		}
		return out
	}
	files, err := userns.New(convert(ids.UIDs), convert(ids.GIDs), unix.CLONE_NEWNET, "net")
	if err != nil {
		return nil, err
	}
	if err := In(files[0], furnish); err != nil {
		files[0].Close()
		return nil, err
	}
	return files[0], nil
}

// setSysctl writes a sysctl of the thread's network namespace; path is below /proc/sys, with slashes.
func setSysctl(path, value string) error {
	fd, err := unix.Open("/proc/sys/"+path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", path, err)
	}
	_, err = unix.Write(fd, []byte(value))
	unix.Close(fd)
	if err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", path, value, err)
	}
	return nil
}

func getSysctl(path string) string {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return ""
	}
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b)
}

// ensureSysctl writes only when the value differs, so that an unprivileged re-check is possible and nothing is woken.
func ensureSysctl(path, value string) error {
	if getSysctl(path) == value {
		return nil
	}
	return setSysctl(path, value)
}

// ifindex asks for the index of an interface in the thread's namespace, through any socket of it.
func ifindex(sock int, name string) (int32, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", strconv.Quote(name), err)
	}
	if err := unix.IoctlIfreq(sock, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return int32(req.Uint32()), nil
}

// ifname is the reverse of ifindex.
func ifname(sock int, index uint32) (string, error) {
	var req struct {
		name  [unix.IFNAMSIZ]byte
		index uint32
		_     [20]byte // struct ifreq is 40 bytes
	}
	req.index = index
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(sock), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return "", errno
	}
	return unix.ByteSliceToString(req.name[:]), nil
}
