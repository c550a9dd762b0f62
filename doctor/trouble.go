package doctor

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

// damaged lists what the daemon set aside in its data root because it could not be read.
func damaged(root string) (found []string) {
	for _, pattern := range []string{"damaged/*", "*.damaged*", "*/*.damaged*", "network*/*/*.damaged*"} {
		names, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns are well-formed
		found = append(found, names...)
	}
	return found
}

// bridges lists the links that daemons of Shoal made, by their mark.
func bridges() map[string]string {
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, l := range links {
		if a := l.Attrs(); strings.HasPrefix(a.Alias, "shoal:") {
			out[a.Name] = a.Alias
		}
	}
	return out
}

// resolverTime is how long a name server may take to say anything at all.
const resolverTime = 2 * time.Second

// silent asks each name server for the root's servers, and gives those from which nothing comes back.
func silent(ctx context.Context, servers []string) (out []string) {
	quiet := make([]bool, len(servers))
	var wait sync.WaitGroup
	for i, s := range servers {
		wait.Go(func() { quiet[i] = !answers(ctx, net.JoinHostPort(s, "53")) })
	}
	wait.Wait()
	for i, s := range servers {
		if quiet[i] {
			out = append(out, s)
		}
	}
	return out
}

func answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, resolverTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	// RFC 1035: identification, "recursion desired", one question: the root (one empty label), type NS, class IN.
	query := []byte{0x5d, 0x0c, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}
	for range 2 { // a packet may get lost
		if _, err := conn.Write(query); err != nil {
			return false
		}
		_ = conn.SetReadDeadline(time.Now().Add(resolverTime / 2))
		var b [512]byte
		if n, err := conn.Read(b[:]); err == nil && n >= 12 && b[0] == query[0] && b[1] == query[1] {
			return true // any answer, a refusal too: somebody is there
		}
	}
	return false
}

// endsInDrop says whether the last rule of a chain drops or rejects whatever comes to it, as firewalld's and Red Hat's do.
func endsInDrop(c *nftables.Conn, ch *nftables.Chain) bool {
	rules, err := c.GetRules(ch.Table, ch)
	return err == nil && len(rules) > 0 && dropsAll(rules[len(rules)-1].Exprs)
}

// dropsAll says whether a rule has no condition and drops or rejects.
func dropsAll(rule []expr.Any) bool {
	drops := false
	for _, e := range rule {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			drops = true
		case *expr.Verdict:
			drops = e.Kind == expr.VerdictDrop
		case *expr.Target: // of iptables-nft
			drops = e.Name == "REJECT"
		default:
			return false // a condition
		}
	}
	return drops
}
