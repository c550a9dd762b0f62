package node

import (
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/node/config"
)

// devices shows the vendors' device descriptions as the engine wants them. The files are read when a container asks for a
// device and not watched: few containers do, and a daemon at rest shall do nothing.
type devices struct {
	mu   sync.Mutex
	dirs func() []string
}

// cdiSpecDirs are the directories of device descriptions: the configured ones, or the standard's. One empty name is none.
func cdiSpecDirs(cfg *config.Config) []string {
	dirs := cfg.Container.Defaults.CDISpecDirs
	if len(dirs) == 0 {
		return slices.Clone(cdi.DefaultSpecDirs)
	}
	return slices.DeleteFunc(slices.Clone(dirs), func(d string) bool { return d == "" })
}

// devices makes the engine's view of them; nil where the configuration switches them off.
func (n *Node) devices() engine.Devices {
	if len(cdiSpecDirs(n.cfg.Load())) == 0 {
		return nil
	}
	return &devices{dirs: func() []string { return cdiSpecDirs(n.cfg.Load()) }}
}

func (d *devices) Dirs() []string { return d.dirs() }

// read reads all files. One that is damaged counts for nothing; Inject tells of it.
func (d *devices) read() (*cdi.Cache, error) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(d.dirs()...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, err
	}
	return cache, cache.Refresh()
}

func (d *devices) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	cache, _ := d.read()
	if cache == nil {
		return nil
	}
	return cache.ListDevices()
}

func (d *devices) Inject(s *specs.Spec, names []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	cache, damage := d.read()
	if cache == nil {
		return damage
	}
	before := len(s.Process.Env)
	_, err := cache.InjectDevices(s, names...)
	if err != nil && damage != nil && strings.Contains(err.Error(), "unresolvable") {
		return &damagedDescriptions{err, damage}
	}
	s.Process.Env = lastOfEach(s.Process.Env, before)
	return err
}

// lastOfEach lets variables that were added at the end replace those of the same name before them.
func lastOfEach(env []string, added int) []string {
	name := func(e string) string { n, _, _ := strings.Cut(e, "="); return n }
	out := slices.Clone(env[:added])
	for _, e := range env[added:] {
		out = slices.DeleteFunc(out, func(o string) bool { return name(o) == name(e) })
		out = append(out, e)
	}
	return out
}

// damagedDescriptions says that a device is not there, and perhaps why.
type damagedDescriptions struct{ err, damage error }

func (d *damagedDescriptions) Error() string {
	return d.err.Error() + "; some descriptions cannot be read: " + d.damage.Error()
}

func (d *damagedDescriptions) Unwrap() error { return d.err }
