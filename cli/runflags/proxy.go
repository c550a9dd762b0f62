package runflags

import (
	"slices"
	"strings"
)

// SetProxies gives the proxy settings of the client's configuration file (variable name to value), which are set in the
// container unless --env or --env-file says otherwise.
func (f *Flags) SetProxies(vars map[string]*string) { f.identity.proxies = vars }

// proxyEnv lists the proxy variables that env does not set, sorted.
func (i *identity) proxyEnv(env []string) []string {
	var out []string
	for name, val := range i.proxies {
		set := slices.ContainsFunc(env, func(e string) bool {
			n, _, _ := strings.Cut(e, "=")
			return n == name
		})
		if set || val == nil {
			continue
		}
		out = append(out, name+"="+*val)
	}
	slices.Sort(out)
	return out
}
