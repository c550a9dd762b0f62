//go:build kernel

package network

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/network/kernel"
)

// sctpPacket is the first packet of an association (chunk 1, INIT) or the answer to it (chunk 2, INIT ACK); RFC 9260.
func sctpPacket(from, to uint16, vtag uint32, chunk byte, tag uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint32(b, vtag)
	b = append(b, 0, 0, 0, 0) // checksum
	b = append(b, chunk, 0, 0, 20)
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// rawSCTP opens a socket that gets all SCTP packets of a namespace, whether the kernel speaks SCTP or not.
func rawSCTP(t *testing.T, ns *os.File) *net.IPConn {
	t.Helper()
	var c *net.IPConn
	err := kernel.In(ns, func() (err error) {
		c, err = net.ListenIP("ip4:132", &net.IPAddr{IP: net.IPv4zero})
		return err
	})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

// A published SCTP port: the packet filter leads the first packet to the container with the client's address, and the
// answer back with the host's.
func TestPublishedSCTP(t *testing.T) {
	w := newWorld(t, nil)
	b := w.box(w.request("sctp", nil, "7000:7001/sctp"))
	server, client := rawSCTP(t, b.ns), rawSCTP(t, w.outside)
	_, err := client.WriteTo(sctpPacket(5555, 7000, 0, 1, 77), &net.IPAddr{IP: hostAddr.AsSlice()})
	must(t, err)
	buf := make([]byte, 200)
	n, from, err := server.ReadFrom(buf)
	must(t, err)
	if port := binary.BigEndian.Uint16(buf[2:]); from.String() != outsideAddr.String() || n != 32 || port != 7001 {
		t.Fatalf("%d bytes of %s for port %d", n, from, port)
	}
	_, err = server.WriteTo(sctpPacket(7001, 5555, 77, 2, 88), from)
	must(t, err)
	for {
		n, from, err = client.ReadFrom(buf)
		must(t, err)
		if n <= 12 || buf[12] != 6 { // ABORT: where the module sctp is loaded, the kernel answers what it has no socket for
			break
		}
	}
	if port := binary.BigEndian.Uint16(buf); from.String() != hostAddr.String() || n != 32 || port != 7000 || buf[12] != 2 {
		t.Fatalf("answer: %d bytes of %s, port %d", n, from, port)
	}
	sum := binary.LittleEndian.Uint32(buf[8:])
	copy(buf[8:12], []byte{0, 0, 0, 0})
	if sum != crc32.Checksum(buf[:n], crc32.MakeTable(crc32.Castagnoli)) {
		t.Error("the answer's checksum is wrong")
	}
	must(t, w.m.Close())
	w.cfg.NoRules, w.cfg.Kernel = true, nil
	w.open()
	_, err = w.tryBox(w.request("relayed", nil, "7002:7001/sctp"))
	if err == nil || !strings.Contains(err.Error(), "carried by the packet filter only") {
		t.Error(err)
	}
}
