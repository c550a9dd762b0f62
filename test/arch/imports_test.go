package arch

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// rule says what packages under a prefix may import of the project. The longest matching prefix decides.
type rule struct {
	who   string   // directory prefix
	may   []string // directory prefixes
	never []ban    // taken out of may
}

type ban struct{ what, why string }

const noPeers = "rooms meet through plain data in model and through node's adapters, not through each other"

// The table of docs/ARCHITECTURE.md. A prefix may always import itself and lib.
var table = []rule{
	{who: "lib", may: nil},
	{who: "model", may: []string{"lib/errs"}},
	{who: "observe", may: []string{"model"}},
	{who: "image", may: []string{"model", "observe"}},
	{who: "runtime", may: []string{"model", "observe"}},
	{who: "task", may: []string{"model", "observe", "runtime/spec"}},
	{who: "network", may: []string{"model", "observe"}},
	{who: "volume", may: []string{"model", "observe"}},
	{who: "build", may: []string{"model", "observe", "image/store"}},
	{who: "oci", may: []string{"model", "image/layer", "image/builtin", "runtime/spec", "runtime/privilege", "runtime/seccomp/profile"}},
	{who: "rootview", may: []string{"model", "observe"}},
	{who: "engine", may: []string{"model", "observe"}, never: []ban{{"cluster", "a single node must not know the cluster"}}},
	{who: "cluster", may: []string{"model", "observe", "network/ipam"}, never: []ban{{"engine", "the agent drives the engine through an adapter in node"}}},
	{who: "stack", may: []string{"model"}},
	{who: "api", may: []string{"model", "observe"}},
	{who: "doctor", may: []string{"model", "observe", "network/probe", "network/plan"}},
	{who: "cli", may: []string{"api/client", "api/types", "api/convert", "stack", "doctor"}, never: []ban{{"engine", "the command line talks to the API only"}}},
	{who: "node", may: []string{""}},
	{who: "cmd", may: []string{""}},
	{who: "images", may: nil},
	{who: "importdocker", may: []string{"model"}},
	{who: "packaging", may: []string{"cli"}},
	{who: "test", may: []string{""}},
}

func under(dir, prefix string) bool {
	return prefix == "" || dir == prefix || strings.HasPrefix(dir, prefix+"/")
}

func ruleFor(dir string) *rule {
	var best *rule
	for i := range table {
		if under(dir, table[i].who) && (best == nil || len(table[i].who) > len(best.who)) {
			best = &table[i]
		}
	}
	return best
}

// why gives the reason against an import, or "".
func (r *rule) why(imported string) string {
	if under(imported, r.who) || under(imported, "lib") && r.who != "model" {
		return ""
	}
	for _, b := range r.never {
		if under(imported, b.what) {
			return b.why
		}
	}
	for _, may := range r.may {
		if under(imported, may) {
			return ""
		}
	}
	return noPeers
}

func TestImportDirection(t *testing.T) {
	for _, p := range load(t) {
		r := ruleFor(p.dir)
		if r == nil {
			if p.dir != "." {
				t.Errorf("%s belongs to no room: add it to the table with what it may import, and to docs/ARCHITECTURE.md", p.dir)
			}
			continue
		}
		for _, imp := range p.imports {
			imported, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			if why := r.why(imported); why != "" {
				t.Errorf("%s imports %s: %s", p.dir, imported, why)
			}
			if under(imported, "node") && !under(p.dir, "cmd") && !under(p.dir, "node") && !under(p.dir, "test") {
				t.Errorf("%s imports node: only mains wire", p.dir)
			}
		}
	}
}

// pure lists the packages that decide only: no goroutine, lock, clock, randomness, file, socket or system call.
var pure = []string{"model", "network/ipam", "network/plan", "runtime/spec", "api/convert", "stack",
	"cluster/orchestrate", "cluster/allocate", "cluster/schedule", "engine/ocispec", "api/access", "doctor/explain"}

var impure = []string{"os", "net", "net/http", "syscall", "sync", "sync/atomic", "math/rand", "math/rand/v2", "crypto/rand",
	"os/exec", "golang.org/x/sys/unix", "io/ioutil", "log", "log/slog", "context"}

func TestPurity(t *testing.T) {
	for _, p := range load(t) {
		if !slices.Contains(pure, p.dir) {
			continue
		}
		for _, imp := range p.imports {
			if slices.Contains(impure, imp) && !slices.Contains(allowedImpure[p.dir], imp) {
				t.Errorf("%s is pure but imports %s", p.dir, imp)
			}
		}
		for _, f := range p.files {
			for _, use := range f.impureUses() {
				t.Errorf("%s is pure but %s", path.Join(p.dir, f.name), use)
			}
		}
	}
}

// allowedImpure are imports of which a pure package uses types and constants only; each has its reason here.
var allowedImpure = map[string][]string{}
