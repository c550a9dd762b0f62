package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/network/plan"
)

// ErrRulesGone says that our table, or a part of it, is not in the kernel any more: somebody flushed the ruleset.
var ErrRulesGone = errors.New("the table of the packet filter is gone")

// nft keeps our table in the kernel. Every call is one transaction: all of it happens, or nothing.
type nft struct {
	mu    sync.Mutex
	conn  *nftables.Conn // kept open; nil after an error, whose answers may still be on their way
	table *nftables.Table
	sets  map[plan.Set]*nftables.Set
}

func newNFT(table string) *nft {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: table}
	return &nft{table: t, sets: makeSets(t)}
}

// elemsPerMessage bounds a message: the kernel's attributes end at 64 KiB.
const elemsPerMessage = 400

func (n *nft) dial() error {
	if n.conn != nil {
		return nil
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(largeBuffers))
	if err != nil {
		return errs.New(errs.Unsupported, "the kernel's packet filter cannot be reached: %w; load the module nf_tables, or start the daemon with --iptables=false", err)
	}
	n.conn = c
	return nil
}

// largeBuffers makes room for transactions of many thousand elements: a transaction is one message to the kernel, which
// refuses one that is larger than the buffer may grow. Nothing is allocated ahead.
func largeBuffers(c *netlink.Conn) error {
	if err := c.SetWriteBuffer(64 << 20); err != nil {
		return err
	}
	return c.SetReadBuffer(8 << 20)
}

func (n *nft) flush(what string) error {
	err := n.conn.Flush()
	if err == nil {
		return nil
	}
	n.conn.CloseLasting()
	n.conn = nil
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return errs.New(errs.Unsupported, "%s: the kernel's packet filter refuses: %w; it needs nf_tables with nat, masq, fib and conntrack for the family inet", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// rebuild makes the whole table as it should be, whatever is there, without a moment in which rules are missing.
// When an older version's sets are in the way, the table is made anew.
func (n *nft) rebuild(elems []plan.Elem) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.program(elems, false)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = n.program(elems, true)
	}
	return err
}

func (n *nft) program(elems []plan.Elem, anew bool) error {
	if err := n.dial(); err != nil {
		return err
	}
	c := n.conn
	c.AddTable(n.table)
	if anew {
		c.DelTable(n.table)
		c.AddTable(n.table)
	}
	defs := chains()
	made := map[string]*nftables.Chain{}
	for _, d := range defs {
		ch := &nftables.Chain{Name: d.name, Table: n.table}
		if d.hook != nil {
			policy := nftables.ChainPolicyAccept
			ch.Type, ch.Hooknum, ch.Priority, ch.Policy = d.typ, d.hook, &d.prio, &policy
		}
		made[d.name] = c.AddChain(ch)
		if d.name != OperatorChain {
			c.FlushChain(ch)
		}
	}
	for _, d := range setDefs {
		if err := c.AddSet(n.sets[d.name], nil); err != nil {
			return err
		}
		c.FlushSet(n.sets[d.name])
	}
	if err := n.elements(elems, c.SetAddElements); err != nil {
		return err
	}
	for _, d := range defs {
		for _, r := range d.rules {
			c.AddRule(&nftables.Rule{Table: n.table, Chain: made[d.name], Exprs: r, UserData: seal(r)})
		}
	}
	return n.flush("write the packet filter's table " + n.table.Name)
}

// elements calls op with the elements of each set, in messages of bounded size.
func (n *nft) elements(elems []plan.Elem, op func(*nftables.Set, []nftables.SetElement) error) error {
	for len(elems) > 0 {
		set, part := elems[0].Set, make([]nftables.SetElement, 0, min(len(elems), elemsPerMessage))
		for len(elems) > 0 && elems[0].Set == set && len(part) < elemsPerMessage {
			e := nftables.SetElement{Key: []byte(elems[0].Key), Val: []byte(elems[0].Val)}
			if elems[0].KeyEnd != "" {
				e.KeyEnd = []byte(elems[0].KeyEnd)
			}
			part = append(part, e)
			elems = elems[1:]
		}
		if err := op(n.sets[set], part); err != nil {
			return errs.Wrap(err, "elements of set %s", set)
		}
	}
	return nil
}

// apply takes elements out and puts elements in. ErrRulesGone: the table or an element to take out is not there.
func (n *nft) apply(del, add []plan.Elem) error {
	if len(del)+len(add) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.dial(); err != nil {
		return err
	}
	if err := n.elements(del, n.conn.SetDeleteElements); err != nil {
		return err
	}
	if err := n.elements(add, n.conn.SetAddElements); err != nil {
		return err
	}
	err := n.flush("change the packet filter")
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %w", ErrRulesGone, err)
	}
	return err
}

// read gives what is in the kernel, and whether the program (chains and number of rules) is whole.
func (n *nft) read() (plan.Rules, bool, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, false, err
	}
	have := plan.Rules{}
	for _, d := range setDefs {
		elems, err := c.GetSetElements(n.sets[d.name])
		if absent(err) {
			return have, false, nil
		}
		if err != nil {
			return nil, false, errs.Wrap(err, "read set %s of the packet filter", d.name)
		}
		for _, e := range elems {
			have.Add(plan.Elem{Set: d.name, Key: string(e.Key), KeyEnd: string(e.KeyEnd), Val: string(e.Val)})
		}
	}
	whole, err := n.programWhole(c)
	return have, whole, err
}

// programWhole says whether our table is awake and our chains are there with our rules, and let pass what no rule judges.
func (n *nft) programWhole(c *nftables.Conn) (bool, error) {
	table, err := c.ListTableOfFamily(n.table.Name, n.table.Family)
	if absent(err) || err == nil && table.Flags != 0 { // asleep, or another program's now
		return false, nil
	}
	if err != nil {
		return false, errs.Wrap(err, "look at the table of the packet filter")
	}
	all, err := c.ListChainsOfTableFamily(n.table.Family)
	if err != nil {
		return false, errs.Wrap(err, "list the chains of the packet filter")
	}
	for _, ch := range all {
		if ch.Table.Name == n.table.Name && ch.Policy != nil && *ch.Policy != nftables.ChainPolicyAccept {
			return false, nil
		}
	}
	for _, d := range chains() {
		rules, err := c.GetRules(n.table, &nftables.Chain{Name: d.name, Table: n.table})
		if absent(err) {
			return false, nil
		}
		if err != nil {
			return false, errs.Wrap(err, "read chain %s of the packet filter", d.name)
		}
		if d.name == OperatorChain {
			continue
		}
		if len(rules) != len(d.rules) {
			return false, nil
		}
		for i, r := range d.rules {
			if !bytes.Equal(rules[i].UserData, seal(r)) {
				return false, nil
			}
		}
	}
	return true, nil
}

// seal is what the kernel keeps with a rule of ours: who puts another rule in its place does not know it, and a daemon
// with another program sees that the rule is not its own. The nft program shows comments (type 0) only.
func seal(r match) []byte {
	const ours = 0x53
	h := fnv.New64a()
	for _, e := range r {
		b, _ := expr.Marshal(v4, e)
		h.Write(b)
	}
	return h.Sum([]byte{ours, 8})
}

// absent says that the kernel has no such object. The library does not always wrap the error.
func absent(err error) bool {
	return err != nil && (errors.Is(err, unix.ENOENT) || strings.Contains(err.Error(), unix.ENOENT.Error()))
}

// remove takes the table away.
func (n *nft) remove() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.dial(); err != nil {
		return err
	}
	n.conn.AddTable(n.table) // so that removing what is not there is no error
	n.conn.DelTable(n.table)
	return n.flush("remove the packet filter's table " + n.table.Name)
}
