package kernel

import (
	"context"
	"encoding/binary"
	"net"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// namesTable is our table inside a container's namespace.
const namesTable = "shoal-names"

// ListenNames opens a name server's sockets inside a container: on port 53, or with redirect on others, to which the
// packet filter leads.
func (k *Real) ListenNames(ns *os.File, redirect bool) (udp *net.UDPConn, tcp *net.TCPListener, err error) {
	port := 53
	if redirect {
		port = 0
	}
	addr := net.IPv4(127, 0, 0, 11)
	err = In(ns, func() error {
		if udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: addr, Port: port}); err != nil {
			return err
		}
		if tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: addr, Port: port}); err != nil {
			udp.Close()
		}
		return err
	})
	if err != nil || !redirect {
		return udp, tcp, err
	}
	err = redirectNames(ns, uint16(udp.LocalAddr().(*net.UDPAddr).Port), uint16(tcp.Addr().(*net.TCPAddr).Port))
	if err != nil {
		udp.Close()
		tcp.Close()
	}
	return udp, tcp, err
}

// Dial opens a connection out of a namespace. addr is one IP address and a port: the socket is opened on this thread.
func (k *Real) Dial(ctx context.Context, ns *os.File, network, addr string) (c net.Conn, err error) {
	var d net.Dialer
	err = In(ns, func() error {
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// redirectNames leads what the container sends to 127.0.0.11, port 53, to the ports that the name server there really
// has. So port 53 stays free for a container that is a name server itself.
func redirectNames(ns *os.File, udp, tcp uint16) error {
	return In(ns, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: namesTable})
		c.DelTable(t)
		c.AddTable(t)
		policy := nftables.ChainPolicyAccept
		ch := c.AddChain(&nftables.Chain{Name: "output", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput,
			Priority: nftables.ChainPriorityNATDest, Policy: &policy})
		for _, to := range []struct {
			proto byte
			port  uint16
		}{{unix.IPPROTO_UDP, udp}, {unix.IPPROTO_TCP, tcp}} {
			m := rule().add(dst4.load(reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{127, 0, 0, 11}},
				l4proto.load(reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{to.proto}},
				dport.load(reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{0, 53}},
				&expr.Immediate{Register: reg0, Data: []byte{127, 0, 0, 11}},
				&expr.Immediate{Register: reg0 + 1, Data: binary.BigEndian.AppendUint16(nil, to.port)}).dnat4()
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: m})
		}
		return errs.Wrap(c.Flush(), "lead name queries to the engine's server")
	})
}
