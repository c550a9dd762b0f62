package kernel

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// RemoveLink removes a link of the host; one that is not there is no error.
func (k *Real) RemoveLink(name string) error {
	k.mu.Lock()
	delete(k.bridgeIx, name)
	k.mu.Unlock()
	k.sysctls.forget(name)
	return removeLink(name)
}

// RemoveInside removes a link inside a namespace; one that is not there is no error.
func (k *Real) RemoveInside(ns *os.File, name string) error {
	return In(ns, func() error { return removeLink(name) })
}

// removing bounds the removals on their way: each holds a thread until the kernel answers, and Go never ends a thread.
var removing = make(chan struct{}, 16)

// removeLink removes a link in the network namespace of the calling thread. It returns as soon as nobody can see the link,
// nor its other end: the kernel announces that after some 0.5 ms, but answers the request only when the last of those that
// were looking at the link has let go of it, 7 to 40 ms later (netdev_run_todo waits for RCU), in which nobody else is held up.
func removeLink(name string) error {
	c, err := dialRTNL() // not the shared socket: others need not wait
	if err != nil {
		return err
	}
	// By its index, since the kernel may carry the request out after we returned: another's removal of the link, that of a
	// namespace with its other end, is announced just the same, and then a new link may have the name.
	index, err := ifindex(c.fd, name)
	if err != nil { // the answer comes when a removal by others is over
		defer c.close()
		return c.do(request{what: "remove link " + name, typ: unix.RTM_DELLINK, body: linkBody(0, 0, 0).str(unix.IFLA_IFNAME, name).b, tolerate: unix.ENODEV})
	}
	unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_LINK); err != nil {
		c.close()
		return fmt.Errorf("remove link %s: listen for its end: %w", name, err)
	}
	unix.SetNonblock(c.fd, true) // so that reading can be ended
	f := os.NewFile(uintptr(c.fd), "netlink")
	c.seq++
	msg := request{typ: unix.RTM_DELLINK, body: linkBody(index, 0, 0).b}.append(nil, c.seq)
	sent, returned := make(chan error, 1), make(chan struct{})
	defer close(returned)
	removing <- struct{}{}
	go func() {
		defer f.Close() // here, since a closed descriptor's number may already be another file's when this comes to send
		err := unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		<-removing
		if err != nil { // nobody will answer
			f.SetReadDeadline(time.Unix(1, 0))
		}
		sent <- err
		<-returned
	}()
	for {
		n, err := f.Read(c.buf)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOBUFS): // more was announced than fits: what we wait for may be among what was dropped
			if err := <-sent; err != nil {
				return fmt.Errorf("remove link %s: send to the kernel: %w", name, err)
			}
			return goneByNow(name)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("remove link %s: send to the kernel: %w", name, <-sent)
		default:
			return fmt.Errorf("remove link %s: answer of the kernel: %w", name, err)
		}
		for b := c.buf[:n]; ; {
			m, rest, ok := nextMessage(b)
			if !ok {
				break
			}
			if errno, text, is := m.answer(); is && m.seq == c.seq {
				if errno != 0 && errno != unix.ENODEV {
					return &kernelError{"remove link " + name, errno, text}
				}
				return nil
			}
			if l, ok := readLink(m.body); m.typ == unix.RTM_DELLINK && ok && m.body[0] == unix.AF_UNSPEC && l.index == uint32(index) {
				return nil
			}
			b = rest
		}
	}
}

// goneByNow says whether a removal that was carried out removed the link.
func goneByNow(name string) error {
	has, err := hasLink(name)
	if err == nil && has {
		err = errors.New("the kernel refused it, and why was lost among too many other messages; try again")
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}
