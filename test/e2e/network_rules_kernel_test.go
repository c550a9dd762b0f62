//go:build kernel

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// scenario is one page of docs/rules: what a user does, and what the packet filter has then.
type scenario struct {
	file, title, about string
	commands           []string // of shoal
}

var scenarios = []scenario{
	{"published", "A published port", "The port is an element of a map: one for IPv4; IPv6 is relayed by the daemon, for the container has none.",
		[]string{"run -d --name web -p 8080:80 -p 127.0.0.1:8081:80 whoami"}},
	{"network", "A network of one's own, with IPv6", "Its bridge may talk with itself (same), is closed to others (bridges), and leaves with the host's address (masq4, masq6).",
		[]string{"network create --subnet 10.50.0.0/24 --ipv6 --subnet 2001:db8:50::/64 -o com.docker.network.bridge.name=br-own own", "run -d --name web --network own -p 8080:80 whoami"}},
	{"internal", "An internal network", "No way out, no way in.",
		[]string{"network create --internal --subnet 10.50.0.0/24 -o com.docker.network.bridge.name=br-inside inside", "run -d --name db --network inside whoami"}},
	{"apart", "Containers that may not talk with each other", "Without an element in same; the bridge's ports are isolated, which needs no rule.",
		[]string{"network create --subnet 10.50.0.0/24 -o com.docker.network.bridge.enable_icc=false -o com.docker.network.bridge.name=br-apart apart", "run -d --name web --network apart -p 8080:80 whoami"}},
	{"sources", "A port for some clients only", "anylimited4 says that the port is limited, anysources4 for whom. The host itself may always.",
		[]string{"run -d --name web whoami", "update --publish-add published=8080,target=80,from=192.0.2.0/24,from=203.0.113.7 web"}},
	{"unprotected", "Gateway mode nat-unprotected", "As nat, but who has a route to the containers reaches all of their ports (open4).",
		[]string{"network create --subnet 10.50.0.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected -o com.docker.network.bridge.name=br-open open", "run -d --name web --network open -p 8080:80 whoami"}},
	{"routed", "Gateway mode routed", "No address translation: published ports are open at the container's own address (direct4), for who has a route to it.",
		[]string{"network create --subnet 10.50.0.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=routed -o com.docker.network.bridge.name=br-routed routed", "run -d --name web --network routed -p 8080:80 whoami"}},
}

// The pages of docs/rules are what a live daemon writes into the kernel. SHOAL_REWRITE=1 writes them.
func TestRulePages(t *testing.T) {
	nftPath := "/usr/sbin/nft"
	if _, err := os.Stat(nftPath); err != nil {
		t.Skip("no nft on this machine")
	}
	w := newNetWorld(t)
	list := func() (out []byte) {
		w.InNet(func() {
			var err error
			if out, err = w.Command(nftPath, "list", "table", "inet", "shoal").Output(); err != nil {
				t.Error(err)
			}
		})
		return out
	}
	chains, base := parts(string(list()))
	page(t, "table", "# The table\n\nThe program of the packet filter, the same whatever runs. Written by the test TestRulePages.\n\n```\n"+chains+"```\n\nWith no container, the default network's part of the sets is:\n\n```\n"+strings.Join(base, "")+"```\n")
	for _, s := range scenarios {
		var text strings.Builder
		fmt.Fprintf(&text, "# %s\n\n%s Written by the test TestRulePages.\n\n```\n", s.title, s.about)
		for _, c := range s.commands {
			fmt.Fprintf(&text, "shoal %s\n", c)
			w.Must(w.Shoal(strings.Fields(c)...))
		}
		same, sets := parts(string(list()))
		if same != chains {
			t.Errorf("%s: the chains changed", s.file)
		}
		text.WriteString("```\n\nWhat the sets and maps have more than before, or have changed:\n\n```\n")
		for _, set := range sets {
			if !slices.Contains(base, set) {
				text.WriteString(set)
			}
		}
		text.WriteString("```\n")
		page(t, s.file, text.String())
		w.Must(w.Shoal(append([]string{"rm", "-f"}, strings.Fields(w.Must(w.Shoal("ps", "-aq")))...)...))
		w.Must(w.Shoal("network", "prune", "-f"))
	}
}

// parts divides a listing into its chains and its sets that have elements.
func parts(table string) (chains string, sets []string) {
	var b strings.Builder
	for _, block := range regexp.MustCompile(`(?ms)^\t(set|map|chain) .*?^\t}\n`).FindAllString(table, -1) {
		switch {
		case strings.HasPrefix(block, "\tchain"):
			b.WriteString(block)
		case strings.HasPrefix(block, "\tset mine"): // on hosts with br_netfilter only
		case strings.Contains(block, "elements ="):
			sets = append(sets, sorted(block))
		}
	}
	return b.String(), sets
}

// sorted gives a set with its elements in order, one a line: the kernel has them in that of their hashes.
func sorted(block string) string {
	head, rest, _ := strings.Cut(block, "elements = {")
	body, tail, _ := strings.Cut(rest, "}")
	elems := strings.Split(body, ",")
	for i, e := range elems {
		elems[i] = "\t\t\t" + strings.Join(strings.Fields(e), " ")
	}
	slices.Sort(elems)
	return head + "elements = {\n" + strings.Join(elems, ",\n") + "\n\t\t}" + tail
}

// The container's address on the default network follows from the order of use; the pages shall not.
var poolAddress = regexp.MustCompile(`\b172\.(1[7-9]|2\d|3[01])\.0\.\d+\b`)

func page(t *testing.T, name, text string) {
	t.Helper()
	text = poolAddress.ReplaceAllString(text, "CONTAINER")
	path := filepath.Join("..", "..", "docs", "rules", name+".md")
	if os.Getenv("SHOAL_REWRITE") != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != text {
		t.Errorf("%s is not what the kernel has (SHOAL_REWRITE=1 writes it): %v\n%s", path, err, text)
	}
}
