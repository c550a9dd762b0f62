package importdocker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// container is a config.v2.json with its hostconfig.json.
type container struct {
	ID, Name, Image, Driver string

	State           state
	Config          map[string]json.RawMessage
	NetworkSettings struct{ Networks map[string]*endpoint }
	MountPoints     map[string]mountPoint

	host map[string]json.RawMessage
}

type state struct {
	Running, Dead, RemovalInProgress bool
	Pid                              int
}

// endpoint is a container's place on a network, as far as it was asked for.
type endpoint struct {
	IPAMConfig        json.RawMessage   `json:",omitempty"`
	Links             []string          `json:",omitempty"`
	Aliases           []string          `json:",omitempty"`
	DriverOpts        map[string]string `json:",omitempty"`
	GwPriority        int               `json:",omitempty"`
	MacAddress        string            `json:",omitempty"`
	DesiredMacAddress string            `json:",omitempty"` // of Docker 25 and later; MacAddress is what it had
}

type mountPoint struct {
	Type, Name, Source, Destination, Propagation, Mode string
	RW                                                 bool
}

// containers reads the containers' records, those first that others refer to.
func (s *Source) containers() (list []*container, problems []Line) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "containers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, Line{Kind: KindContainer, Name: "store", Result: Failed, Detail: err.Error()})
	}
	for _, e := range entries {
		dir := filepath.Join(s.dir, "containers", e.Name())
		c := &container{}
		err := readJSON(filepath.Join(dir, "config.v2.json"), c)
		if err == nil {
			err = readJSON(filepath.Join(dir, "hostconfig.json"), &c.host)
		}
		if err == nil && (c.ID != e.Name() || len(c.ID) < 12 || len(c.Name) < 2 || c.Config == nil || c.host == nil) {
			err = errs.New(errs.Damaged, "its record is of container %q with the name %q", c.ID, c.Name)
		}
		if err != nil {
			problems = append(problems, Line{Kind: KindContainer, Name: e.Name(), Result: Failed, Detail: err.Error()})
			continue
		}
		c.Name = strings.TrimPrefix(c.Name, "/")
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *container) int { return strings.Compare(a.Name, b.Name) })
	return inOrder(list), problems
}

// inOrder puts containers after those that they refer to.
func inOrder(list []*container) (out []*container) {
	byName := map[string]*container{}
	for _, c := range list {
		byName[c.Name], byName[c.ID] = c, c
	}
	seen := map[*container]bool{}
	var visit func(c *container)
	visit = func(c *container) {
		if c == nil || seen[c] {
			return
		}
		seen[c] = true
		for _, name := range c.refersTo() {
			visit(byName[name])
		}
		out = append(out, c)
	}
	for _, c := range list {
		visit(c)
	}
	return out
}

// modes are the fields of a host configuration that may name another container.
var modes = []string{"NetworkMode", "IpcMode", "PidMode"}

func (c *container) refersTo() (names []string) {
	for _, key := range modes {
		if name, ok := strings.CutPrefix(c.text(key), "container:"); ok {
			names = append(names, name)
		}
	}
	var links []string
	json.Unmarshal(c.host["Links"], &links)
	for _, l := range links {
		name, _, _ := strings.Cut(l, ":")
		names = append(names, strings.Trim(name, "/"))
	}
	return names
}

// text is a text of the host configuration.
func (c *container) text(key string) (value string) {
	json.Unmarshal(c.host[key], &value)
	return value
}

// refusal is why a container cannot be taken over; "" when it can.
func (c *container) refusal() string {
	var labels map[string]string
	json.Unmarshal(c.Config["Labels"], &labels)
	switch {
	case labels["com.docker.swarm.task.id"] != "":
		return "it is a task of a swarm's service"
	case c.State.Dead || c.State.RemovalInProgress:
		return "it was being removed"
	case c.State.Running && c.runs():
		return fmt.Sprintf("it still runs (process %d; live-restore keeps containers when Docker stops): stop it with Docker first", c.State.Pid)
	}
	return ""
}

// runs says whether the container's process is there, and is not another one with its number.
func (c *container) runs() bool {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.State.Pid))
	return err == nil && strings.Contains(string(groups), c.ID)
}

// body is the request that makes the container from image. names are those of the containers by ID and of the networks.
func (c *container) body(image string, names map[string]string) ([]byte, error) {
	b := maps.Clone(c.Config)
	host := maps.Clone(c.host)
	put := func(m map[string]json.RawMessage, key string, v any) {
		data, err := json.Marshal(v)
		if err == nil { // of texts, lists and maps there is no error
			m[key] = data
		}
	}
	put(b, "Image", image)
	if short := c.ID[:12]; string(b["Hostname"]) == `"`+short+`"` {
		delete(b, "Hostname") // it was made of the ID, and the new one's is
	}
	for _, key := range modes {
		mode := c.text(key)
		if id, ok := strings.CutPrefix(mode, "container:"); ok {
			put(host, key, "container:"+cmp.Or(names[id], id))
		} else if key == "NetworkMode" {
			put(host, key, cmp.Or(names[mode], mode))
		}
	}
	binds, mounts, err := c.mounts()
	if err != nil {
		return nil, err
	}
	put(host, "Binds", binds)
	put(host, "Mounts", mounts)
	delete(host, "VolumesFrom") // those are among the binds
	mac := ""
	json.Unmarshal(b["MacAddress"], &mac)
	delete(b, "MacAddress")
	put(b, "HostConfig", host)
	put(b, "NetworkingConfig", map[string]any{"EndpointsConfig": c.endpoints(mac)})
	return json.Marshal(b)
}

// mounts are the container's mounts with the volumes that it had: also anonymous ones and those of other containers.
func (c *container) mounts() (binds []string, mounts []map[string]any, err error) {
	for key, into := range map[string]any{"Binds": &binds, "Mounts": &mounts} {
		if raw := c.host[key]; raw != nil {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, nil, errs.New(errs.Damaged, "hostconfig.json: %s: %w", key, err)
			}
		}
	}
	known := map[string]bool{}
	for i, bind := range binds {
		parts := strings.Split(bind, ":")
		if len(parts) == 1 { // an anonymous volume's path
			binds[i] = ""
			continue
		}
		known[filepath.Clean(parts[1])] = true
	}
	binds = slices.DeleteFunc(binds, func(b string) bool { return b == "" })
	for _, m := range mounts {
		target, _ := m["Target"].(string)
		mp, there := c.MountPoints[filepath.Clean(target)]
		if source, _ := m["Source"].(string); source == "" && there && mp.Name != "" {
			m["Source"] = mp.Name
		}
		known[filepath.Clean(target)] = true
	}
	for _, dest := range slices.Sorted(maps.Keys(c.MountPoints)) {
		mp := c.MountPoints[dest]
		source := cmp.Or(mp.Name, mp.Source)
		if known[filepath.Clean(dest)] || source == "" || mp.Type == "tmpfs" {
			continue
		}
		bind := source + ":" + dest
		if !mp.RW {
			bind += ":ro"
		}
		binds = append(binds, bind)
	}
	return binds, mounts, nil
}

// endpoints are the container's networks. mac is the address that was asked for the whole container.
func (c *container) endpoints(mac string) map[string]endpoint {
	out := map[string]endpoint{}
	mode := c.text("NetworkMode")
	if strings.HasPrefix(mode, "container:") {
		return out
	}
	for name, e := range c.NetworkSettings.Networks {
		if e == nil {
			e = &endpoint{}
		}
		n := endpoint{IPAMConfig: e.IPAMConfig, Links: e.Links, DriverOpts: e.DriverOpts, GwPriority: e.GwPriority, MacAddress: e.DesiredMacAddress}
		if name == mode || mode == "default" && name == "bridge" || len(c.NetworkSettings.Networks) == 1 {
			n.MacAddress = cmp.Or(n.MacAddress, mac)
		}
		for _, a := range e.Aliases {
			if a != c.ID[:12] {
				n.Aliases = append(n.Aliases, a)
			}
		}
		out[name] = n
	}
	return out
}

// writable is the directory with what the container changed; "" when there is none.
func (s *Source) writable(c *container) (string, error) {
	for _, st := range s.stores {
		if dir, err := st.writable(c.ID); dir != "" || err != nil {
			return dir, err
		}
	}
	base, ok := overlayDirs[c.Driver]
	if !ok {
		return "", errs.New(errs.Unsupported, "its changes are kept by the storage driver %s, which cannot be read; commit it to an image with Docker first", c.Driver)
	}
	id, err := os.ReadFile(filepath.Join(s.dir, "image", c.Driver, "layerdb/mounts", c.ID, "mount-id"))
	if err != nil {
		return "", errs.New(errs.Damaged, "its changes are missing: %w", err)
	}
	return filepath.Join(s.dir, base, filepath.Base(strings.TrimSpace(string(id))), "diff"), nil
}
