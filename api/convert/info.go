package convert

import (
	"github.com/moby/moby/api/types/system"

	"github.com/shoalhq/shoal/api/types"
)

// Info is the answer of GET /info in the shape of the version.
func Info(i system.Info, v types.Version) any {
	i.Containerd = nil
	if v >= 52 {
		return i
	}
	no := false
	old := OldInfo{Info: i, ContainerdCommit: oldCommit{ID: i.ContainerdCommit.ID}, RuncCommit: oldCommit{ID: i.RuncCommit.ID}, InitCommit: oldCommit{ID: i.InitCommit.ID}}
	if v < 49 {
		old.ContainerdCommit.Expected, old.RuncCommit.Expected, old.InitCommit.Expected = i.ContainerdCommit.ID, i.RuncCommit.ID, i.InitCommit.ID
	}
	if v < 50 {
		old.BridgeNfIptables, old.BridgeNfIP6tables = &no, &no
	}
	if v < 42 {
		old.KernelMemory, old.KernelMemoryTCP = &no, &no
	}
	if v < 44 { // runtimes had no status
		runtimes := make(map[string]system.RuntimeWithStatus, len(i.Runtimes))
		for name, r := range i.Runtimes {
			r.Status = nil
			runtimes[name] = r
		}
		old.Info.Runtimes = runtimes
	}
	if v < 39 {
		old.Warnings = nil
	}
	if v < 25 { // a plain name instead of name=...,key=value
		old.SecurityOptions = plainOptions(i.SecurityOptions)
	}
	return old
}

func plainOptions(options []string) []string {
	out := []string{}
	for _, o := range options {
		const prefix = "name="
		if len(o) > len(prefix) && o[:len(prefix)] == prefix {
			o = o[len(prefix):]
		}
		for i := range len(o) {
			if o[i] == ',' {
				o = o[:i]
				break
			}
		}
		out = append(out, o)
	}
	return out
}
