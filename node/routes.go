package node

import (
	"net/http"

	"github.com/shoalhq/shoal/api/server"
	"github.com/shoalhq/shoal/build"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/observe/audit"
)

// front is what clients reach.
type front struct {
	api      *server.Server
	builder  *build.Builder
	guard    server.Guard // of the full API; scoped sockets add their scope
	backends server.Backends
	sockets  *sockets
	audit    *audit.Log // nil: off
}

// route is an addition of ours to the API.
type route = func(http.ResponseWriter, *http.Request) error

// routes are Shoal's own additions by their patterns. What right each needs is in api/access/routes.go.
func (n *Node) routes() map[string]route {
	return map[string]route{
		"GET /shoal/doctor":                   n.serveDoctor,
		"GET /shoal/ports":                    n.servePorts,
		"POST /shoal/containers/{name}/ports": n.serveUpdatePorts,
		"POST /shoal/manifests/inspect":       n.serveManifest,
		"POST /shoal/manifests/push":          n.serveIndexPush,
		"GET /shoal/sockets":                  n.serveSockets,
		"POST /shoal/sockets":                 n.serveSocketCreate,
		"DELETE /shoal/sockets/{name}":        n.serveSocketRemove,
		"POST /shoal/explain":                 n.serveExplain,
		"GET /shoal/audit":                    n.serveAudit,
		"POST /shoal/import-docker":           n.serveImportDocker,
	}
}

// newServer makes a server of the API behind a guard.
func (n *Node) newServer(b server.Backends, g server.Guard) *server.Server {
	return server.New(server.Config{Version: version.Version, Experimental: n.cfg.Load().Daemon.Experimental, Log: n.log, Backends: b, Guard: g})
}
