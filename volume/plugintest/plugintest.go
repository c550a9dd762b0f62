// Package plugintest is a volume plug-in for tests: it speaks Docker's protocol on a unix socket, keeps volumes as
// directories, and hangs, refuses or dies when it is told to. It must not be part of any program.
package plugintest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Plugin is a running plug-in.
type Plugin struct {
	Root   string // of its volumes
	socket string

	mu     sync.Mutex
	server *http.Server
	mounts map[string][]string      // volume → who mounted it
	refuse map[string]string        // method → message
	hang   map[string]chan struct{} // method → closed when it may go on
	calls  []string
}

// Start serves a plug-in of the name in dir until the test's end.
func Start(t testing.TB, dir, name string) *Plugin {
	t.Helper()
	p := &Plugin{Root: t.TempDir(), socket: filepath.Join(dir, name+".sock"), mounts: map[string][]string{},
		refuse: map[string]string{}, hang: map[string]chan struct{}{}}
	p.Revive(t)
	t.Cleanup(func() { p.Hang("", false); p.Die() })
	return p
}

// Revive serves again after Die.
func (p *Plugin) Revive(t testing.TB) {
	t.Helper()
	os.Remove(p.socket)
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(p.serve)}
	p.mu.Lock()
	p.server = s
	p.mu.Unlock()
	go s.Serve(l)
}

// Die ends it at once, as kill -9 does; its socket stays in the directory.
func (p *Plugin) Die() {
	p.mu.Lock()
	s := p.server
	p.mu.Unlock()
	s.Close()
	os.WriteFile(p.socket, nil, 0o600)
	os.Remove(p.socket)
	if fd, err := net.Listen("unix", p.socket); err == nil {
		fd.(*net.UnixListener).SetUnlinkOnClose(false)
		fd.Close()
	}
}

// Refuse makes a method ("Mount") answer with an error; an empty message makes it work again.
func (p *Plugin) Refuse(method, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse[method] = message
}

// Hang makes a method not answer, or with false lets it (all with "") go on.
func (p *Plugin) Hang(method string, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for m, ch := range p.hang {
		if m == method || method == "" {
			close(ch)
			delete(p.hang, m)
		}
	}
	if on {
		p.hang[method] = make(chan struct{})
	}
}

// Mounts lists who has a volume mounted.
func (p *Plugin) Mounts(volume string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mounts[volume])
}

// Calls lists the methods that were called since the last Calls, without Plugin.Activate.
func (p *Plugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.calls
	p.calls = nil
	return c
}

func (p *Plugin) serve(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/VolumeDriver.")
	var in struct {
		Name, ID string
		Opts     map[string]string
	}
	json.NewDecoder(r.Body).Decode(&in)
	p.mu.Lock()
	hang := p.hang[method]
	if !strings.HasPrefix(method, "/") {
		p.calls = append(p.calls, strings.TrimSpace(method+" "+in.Name))
	}
	p.mu.Unlock()
	if hang != nil {
		<-hang
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if message := p.refuse[method]; message != "" {
		w.WriteHeader(http.StatusInternalServerError)
		json.NewEncoder(w).Encode(map[string]string{"Err": message})
		return
	}
	out, err := p.answer(method, in.Name, in.ID, in.Opts)
	if err != nil {
		out = map[string]string{"Err": err.Error()}
	}
	json.NewEncoder(w).Encode(out)
}

func (p *Plugin) answer(method, name, id string, opts map[string]string) (any, error) {
	dir := filepath.Join(p.Root, name)
	if name != "" && method != "Create" {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("volume %s is not mine", name)
		}
	}
	describe := func(name string) map[string]any {
		v := map[string]any{"Name": name, "Status": map[string]any{"mounts": len(p.mounts[name])}}
		if len(p.mounts[name]) > 0 {
			v["Mountpoint"] = filepath.Join(p.Root, name)
		}
		return v
	}
	switch method {
	case "/Plugin.Activate":
		return map[string]any{"Implements": []string{"VolumeDriver"}}, nil
	case "Capabilities":
		return map[string]any{"Capabilities": map[string]string{"Scope": "global"}}, nil
	case "Create":
		if opts["bad"] != "" {
			return nil, fmt.Errorf("option bad=%s is bad", opts["bad"])
		}
		return struct{}{}, os.MkdirAll(dir, 0o755)
	case "Remove":
		if len(p.mounts[name]) > 0 {
			return nil, fmt.Errorf("volume %s is mounted by %v", name, p.mounts[name])
		}
		return struct{}{}, os.RemoveAll(dir)
	case "Mount":
		p.mounts[name] = append(p.mounts[name], id)
		return map[string]string{"Mountpoint": dir}, nil
	case "Unmount":
		i := slices.Index(p.mounts[name], id)
		if i < 0 {
			return nil, fmt.Errorf("volume %s is not mounted by %s", name, id)
		}
		p.mounts[name] = slices.Delete(p.mounts[name], i, i+1)
		return struct{}{}, nil
	case "Path":
		return map[string]string{"Mountpoint": dir}, nil
	case "Get":
		return map[string]any{"Volume": describe(name)}, nil
	case "List":
		list := []any{}
		entries, err := os.ReadDir(p.Root)
		for _, e := range entries {
			list = append(list, describe(e.Name()))
		}
		return map[string]any{"Volumes": list}, err
	}
	return nil, fmt.Errorf("unknown method %s", method)
}
