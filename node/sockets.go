package node

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalhq/shoal/api/access"
	"github.com/shoalhq/shoal/api/server"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/observe/health"
)

// sockets are the scoped sockets: each a small server of its own before the same rooms. Their records are below the data
// root; the sockets below the exec root, each in a directory of its own that can be mounted into a container and stays the
// same over restarts of the daemon.
type sockets struct {
	n *Node

	mu   sync.Mutex
	open map[string]*scopedSocket
}

type scopedSocket struct {
	types.Socket
	server *server.Server // nil: not served, for Problem
}

const (
	socketFile = "shoal.sock"
	staging    = ".new" // no socket's name
)

func (n *Node) socketDir() string {
	return filepath.Join(resolved(n.cfg.Load().Daemon.ExecRoot), "sockets")
}

func (s *sockets) records() string { return filepath.Join(s.n.cfg.Load().Daemon.DataRoot, "sockets") }

// openSockets serves the sockets that there were. One that cannot be served stops nothing.
func openSockets(n *Node) *sockets {
	s := &sockets{n: n, open: map[string]*scopedSocket{}}
	entries, err := os.ReadDir(s.records())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Error("the scoped sockets cannot be read and are not served", "reason", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.records(), e.Name())
		name, isRecord := strings.CutSuffix(e.Name(), ".json")
		if atomicfile.IsTemp(e.Name()) {
			os.Remove(path)
			continue
		}
		if !isRecord {
			continue
		}
		one := &scopedSocket{}
		err := atomicfile.ReadJSON(path, &one.Socket)
		if err == nil && one.Name != name {
			err = errs.New(errs.Damaged, "%s is the record of %q", path, one.Name)
		}
		if err != nil {
			one.Socket = types.Socket{Name: name, Verbs: []string{}, Labels: []string{}}
		} else {
			err = s.serve(one)
		}
		if err != nil {
			one.Problem = err.Error()
			health.Log(n.log, "socket-not-served", "a scoped socket is not served", "socket", name, "reason", err)
		}
		s.open[name] = one
	}
	s.sweep()
	return s
}

// sweep removes what a create that was cut off left.
func (s *sockets) sweep() {
	entries, _ := os.ReadDir(s.n.socketDir()) // none before the first socket
	for _, e := range entries {
		if s.open[e.Name()] == nil {
			os.RemoveAll(filepath.Join(s.n.socketDir(), e.Name()))
		}
	}
}

func (s *sockets) scope(one *scopedSocket) (*access.Scope, error) {
	sc := &access.Scope{Name: one.Name, Labels: one.Labels}
	for _, v := range one.Verbs {
		sc.Verbs = append(sc.Verbs, access.Verb(v))
	}
	return sc, sc.Validate()
}

// serve makes the socket and answers on it.
func (s *sockets) serve(one *scopedSocket) error {
	scope, err := s.scope(one)
	if err != nil {
		return err
	}
	one.Path = filepath.Join(s.n.socketDir(), one.Name, socketFile)
	l, err := s.listen(one)
	if err != nil {
		return err
	}
	g := s.n.front.guard
	g.Scope = scope
	one.server = s.n.newServer(server.Narrow(s.n.front.backends, scope), g)
	go func() {
		if err := one.server.Serve(l); err != nil {
			s.n.log.Error("a scoped socket is served no longer", "socket", one.Name, "reason", err)
		}
	}()
	return nil
}

// listen makes the socket where only root comes, and moves it to its place when its owner and mode are right: containers
// that have its directory may put links there.
func (s *sockets) listen(one *scopedSocket) (net.Listener, error) {
	dir := s.n.socketDir()
	for path, mode := range map[string]os.FileMode{dir: 0o711, filepath.Join(dir, staging): 0o700, filepath.Dir(one.Path): 0o755} {
		if err := os.MkdirAll(path, mode); err != nil {
			return nil, err
		}
	}
	gid := 0
	if one.Group != "" {
		var err error
		if gid, err = groupID(one.Group); err != nil {
			return nil, err
		}
	}
	temp := filepath.Join(dir, staging, one.Name)
	if err := os.RemoveAll(temp); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, errs.Wrap(err, "make the socket %s", one.Path)
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Chown(temp, 0, gid), os.Chmod(temp, 0o660))
	if err == nil {
		err = errors.Join(os.RemoveAll(one.Path), os.Rename(temp, one.Path))
	}
	if err != nil {
		l.Close()
		os.Remove(temp)
		return nil, err
	}
	return l, nil
}

// create makes a socket and remembers it.
func (s *sockets) create(spec types.SocketSpec) (types.Socket, error) {
	one := &scopedSocket{Socket: types.Socket{Name: spec.Name, Verbs: slices.Clone(spec.Verbs), Labels: spec.Labels, Group: spec.Group, Created: time.Now().UTC()}}
	if spec.ReadOnly {
		for _, v := range access.Looking {
			one.Verbs = append(one.Verbs, string(v))
		}
	}
	sc, err := s.scope(one)
	if err != nil {
		return types.Socket{}, err
	}
	one.Verbs = one.Verbs[:0]
	for _, v := range sc.Verbs {
		one.Verbs = append(one.Verbs, string(v))
	}
	if one.Labels == nil {
		one.Labels = []string{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[spec.Name] != nil {
		return types.Socket{}, errs.New(errs.Conflict, "there is a socket %q already; remove it first (shoal socket rm %[1]s) or choose another name", spec.Name)
	}
	var u undo.Stack
	defer u.Run()
	u.Add(func() { s.end(one) })
	if err := s.serve(one); err != nil {
		return types.Socket{}, err
	}
	if err := failpoint.Hit("node/socket-served"); err != nil {
		return types.Socket{}, err
	}
	if err := os.MkdirAll(s.records(), 0o700); err != nil {
		return types.Socket{}, err
	}
	if err := atomicfile.WriteJSON(s.record(one.Name), one.Socket, 0o600, atomicfile.Durable); err != nil {
		return types.Socket{}, err
	}
	u.Release()
	s.open[one.Name] = one
	return one.Socket, nil
}

func (s *sockets) record(name string) string { return filepath.Join(s.records(), name+".json") }

// remove ends the socket and what its users were doing.
func (s *sockets) remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.open[name]
	if one == nil {
		return errs.New(errs.NotFound, "No such socket: %s", name)
	}
	if err := os.RemoveAll(s.record(name)); err != nil {
		return err
	}
	delete(s.open, name)
	s.end(one)
	return nil
}

func (s *sockets) end(one *scopedSocket) {
	if one.server != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once: a right that was taken away ends now
		one.server.Shutdown(ctx)
	}
	os.RemoveAll(filepath.Join(s.n.socketDir(), one.Name))
}

func (s *sockets) list() []types.Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []types.Socket{}
	for _, one := range s.open {
		out = append(out, one.Socket)
	}
	slices.SortFunc(out, func(a, b types.Socket) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// shutdown ends the servers; the sockets stay known.
func (s *sockets) shutdown(ctx context.Context) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.open {
		if one.server != nil {
			one.server.Shutdown(ctx)
		}
	}
}

func (n *Node) serveSockets(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, n.front.sockets.list())
}

func (n *Node) serveSocketCreate(w http.ResponseWriter, r *http.Request) error {
	var spec types.SocketSpec
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(&spec); err != nil {
		return errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	one, err := n.front.sockets.create(spec)
	if err != nil {
		return err
	}
	return answer(w, one)
}

func (n *Node) serveSocketRemove(w http.ResponseWriter, r *http.Request) error {
	if err := n.front.sockets.remove(r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
