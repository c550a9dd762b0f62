package kernel

import (
	"encoding/binary"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// namesTable is our table inside a container's namespace.
const namesTable = "shoal-names"

// RedirectNames leads what the container sends to 127.0.0.11, port 53, to the ports that the name server there really
// has. So port 53 stays free for a container that is a name server itself.
func RedirectNames(ns *os.File, udp, tcp uint16) error {
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
