package container

import (
	"encoding/binary"
	"fmt"
	"net"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// moveNetDevices gives the container network devices of the host, by one netlink request each: RTM_NEWLINK with the
// namespace of the process and, if wanted, a new name. The kernel takes the device's addresses away and sets it down; a
// createRuntime hook or the engine sets it up inside.
func moveNetDevices(pid int, devices map[string]specs.LinuxNetDevice) error {
	if len(devices) == 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("move network devices: %w", err)
	}
	defer unix.Close(fd)
	for name, d := range devices {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return errs.New(errs.NotFound, "linux.netDevices: network device %s: %w", name, err)
		}
		if err := moveLink(fd, link.Index, pid, d.Name); err != nil {
			return fmt.Errorf("move network device %s into the container: %w", name, err)
		}
	}
	return nil
}

func moveLink(fd, index, pid int, newName string) error {
	le := binary.NativeEndian
	msg := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	le.PutUint16(msg[4:], unix.RTM_NEWLINK)
	le.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	le.PutUint32(msg[8:], 1)
	le.PutUint32(msg[unix.SizeofNlMsghdr+4:], uint32(index))
	attr := func(typ uint16, value []byte) {
		head := make([]byte, 4)
		le.PutUint16(head, uint16(4+len(value)))
		le.PutUint16(head[2:], typ)
		msg = append(append(msg, head...), value...)
		for len(msg)%4 != 0 {
			msg = append(msg, 0)
		}
	}
	attr(unix.IFLA_NET_NS_PID, le.AppendUint32(nil, uint32(pid)))
	if newName != "" {
		attr(unix.IFLA_IFNAME, append([]byte(newName), 0))
	}
	le.PutUint32(msg, uint32(len(msg)))
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	answers, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.Header.Type == unix.NLMSG_ERROR && len(a.Data) >= 4 {
			if code := int32(le.Uint32(a.Data)); code != 0 {
				return syscall.Errno(-code)
			}
		}
	}
	return nil
}
