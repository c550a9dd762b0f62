package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// engineRules are about what only the daemon knows.
func engineRules(f Facts) []Finding {
	e := f.Engine
	if e == nil {
		return nil
	}
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(f.Network.Bridges)) {
		if owner := f.Network.Bridges[name]; e.Owner != "" && owner != e.Owner {
			out = append(out, find(Info, "leftover-bridge", "the bridge "+name+" was made by another daemon of Shoal ("+owner+"): one that runs beside this one, or one that is gone with its data",
				"if that daemon is gone for good: ip link delete "+name+", and the table that \"nft list tables\" shows for it", "the addresses of that bridge"))
		}
	}
	if e.Down != "" {
		out = append(out, find(Info, "daemon-down", "the daemon could not be asked, so that its containers and sockets were not looked at: "+e.Down, "do what that says, and look again", "finding containers that see the engine"))
	}
	for _, x := range e.Exposed {
		code, cause := "engine-exposed", fmt.Sprintf("container %s sees %s by its mount of %s: its processes are root on this machine if they want", x.Container, x.What, x.Source)
		if x.Key {
			code = "client-key-exposed"
		}
		out = append(out, find(Warning, code, cause, "give it a scoped socket instead (shoal socket create), or remove the mount; --engine-mounts=forbid refuses such containers",
			"everything on this machine"))
	}
	for _, a := range e.Open {
		out = append(out, find(Warning, "api-open", "the API is served at "+a+" without client certificates: whoever reaches it is root on this machine",
			"use --tlsverify with --tlscacert, --tlscert and --tlskey", "everything on this machine"))
	}
	for _, s := range e.Sockets {
		out = append(out, find(Warning, "socket-not-served", "the scoped socket "+s.Name+" is not served: "+strings.TrimSpace(s.Problem), "remove it (shoal socket rm "+s.Name+") and create it again",
			"who uses it"))
	}
	return out
}
