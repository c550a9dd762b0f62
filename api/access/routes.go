package access

import "strings"

// Verb is a right that a route needs.
type Verb string

// The verbs. A scoped socket can be given all but Open, which everybody has, and Engine, which only the full socket has.
const (
	Open    Verb = "open"    // who is there, in which version
	Engine  Verb = "engine"  // anything that reaches beyond containers that are there already, or into them
	List    Verb = "list"    // containers, images, networks, volumes
	Inspect Verb = "inspect" // one of them
	Logs    Verb = "logs"    // what containers printed
	Events  Verb = "events"  // what happens to containers
	Stats   Verb = "stats"   // what containers use
	Top     Verb = "top"     // the processes of containers, with their arguments
	Wait    Verb = "wait"    // until a container ends
	Start   Verb = "start"
	Stop    Verb = "stop"
	Restart Verb = "restart"
	Kill    Verb = "kill" // any signal
	Pause   Verb = "pause"
	Unpause Verb = "unpause"
	Remove  Verb = "remove" // containers, not images, networks or volumes
)

// Looking are the verbs that change nothing: what --read-only gives.
var Looking = []Verb{List, Inspect, Logs, Events, Stats, Top, Wait}

// Changing are the other verbs that a scoped socket can be given.
var Changing = []Verb{Start, Stop, Restart, Kill, Pause, Unpause, Remove}

// Rule is what a route needs.
type Rule struct {
	Verb Verb
	// Stream says that the body is an archive or a conversation: it is neither JSON nor read at once.
	Stream bool
	// Looks says that the route changes nothing and shows nothing of containers' files: an audit log may leave it out.
	Looks bool
}

// RuleFor finds a route's rule. pattern is the route's as it was registered with the server, path the request's without
// version: routes that end in {rest...} are told apart by its last part. What is not in the table needs the full socket.
func RuleFor(pattern, path string) (Rule, bool) {
	if strings.HasSuffix(pattern, "/{rest...}") {
		pattern += "#" + path[strings.LastIndexByte(path, '/')+1:]
	}
	r, ok := table[pattern]
	if !ok {
		return Rule{Verb: Engine}, false
	}
	return r, true
}

var (
	engine   = Rule{Verb: Engine}
	look     = Rule{Verb: Engine, Looks: true}
	streamed = Rule{Verb: Engine, Stream: true}
)

func looking(v Verb) Rule { return Rule{Verb: v, Looks: true} }

// table has every route of the server; a test of the server and one of the daemon compare. A new route that creates, runs
// or reads files is "engine": whoever could use it through a scoped socket would be root on the host.
var table = map[string]Rule{
	"/":              looking(Open), // 404
	"GET /_ping":     looking(Open),
	"GET /version":   looking(Open),
	"GET /events":    looking(Events),
	"GET /info":      look, // proxies with passwords, registries, directories
	"GET /system/df": look,

	"GET /containers/json":                looking(List),
	"GET /containers/{name}/json":         looking(Inspect),
	"GET /containers/{name}/logs":         looking(Logs),
	"GET /containers/{name}/stats":        looking(Stats),
	"GET /containers/{name}/top":          looking(Top),
	"POST /containers/{name}/wait":        looking(Wait),
	"POST /containers/{name}/start":       {Verb: Start},
	"POST /containers/{name}/stop":        {Verb: Stop},
	"POST /containers/{name}/restart":     {Verb: Restart},
	"POST /containers/{name}/kill":        {Verb: Kill},
	"POST /containers/{name}/pause":       {Verb: Pause},
	"POST /containers/{name}/unpause":     {Verb: Unpause},
	"DELETE /containers/{name}":           {Verb: Remove},
	"POST /containers/create":             engine,
	"POST /containers/prune":              engine,
	"POST /containers/{name}/rename":      engine,
	"POST /containers/{name}/update":      engine,
	"POST /containers/{name}/resize":      look,
	"POST /containers/{name}/attach":      streamed,
	"GET /containers/{name}/attach/ws":    streamed,
	"POST /containers/{name}/exec":        engine,
	"POST /exec/{id}/start":               engine,
	"POST /exec/{id}/resize":              look,
	"GET /exec/{id}/json":                 look,
	"GET /containers/{name}/changes":      look,
	"GET /containers/{name}/export":       engine,
	"HEAD /containers/{name}/archive":     engine,
	"GET /containers/{name}/archive":      engine,
	"PUT /containers/{name}/archive":      streamed,
	"POST /containers/{name}/copy":        engine,
	"POST /commit":                        engine,
	"/containers/{name}/checkpoints":      engine,
	"/containers/{name}/checkpoints/":     engine,
	"GET /images/json":                    looking(List),
	"GET /images/{rest...}#json":          looking(Inspect),
	"GET /images/{rest...}#history":       look, // the steps of a build tell what was in its environment
	"GET /images/{rest...}#get":           engine,
	"GET /images/get":                     engine,
	"GET /images/search":                  look,
	"POST /images/create":                 streamed,
	"POST /images/load":                   streamed,
	"POST /images/prune":                  engine,
	"POST /images/{rest...}#tag":          engine,
	"POST /images/{rest...}#push":         engine,
	"DELETE /images/{name...}":            engine,
	"POST /auth":                          engine,
	"GET /distribution/{rest...}#json":    look,
	"GET /networks":                       looking(List),
	"GET /networks/{$}":                   looking(List),
	"GET /networks/{id}":                  looking(Inspect),
	"POST /networks/create":               engine,
	"POST /networks/prune":                engine,
	"POST /networks/{id}/connect":         engine,
	"POST /networks/{id}/disconnect":      engine,
	"DELETE /networks/{id}":               engine,
	"GET /volumes":                        looking(List),
	"GET /volumes/{name}":                 looking(Inspect),
	"POST /volumes/create":                engine,
	"POST /volumes/prune":                 engine,
	"PUT /volumes/{name}":                 engine,
	"DELETE /volumes/{name}":              engine,
	"POST /build":                         streamed,
	"/build":                              streamed,
	"/build/":                             engine,
	"POST /build/prune":                   engine,
	"POST /build/cancel":                  engine,
	"POST /session":                       streamed,
	"POST /grpc":                          streamed,
	"/session":                            streamed,
	"/grpc":                               streamed,
	"GET /plugins":                        look,
	"GET /plugins/{name}/json":            look,
	"/plugins/":                           engine,
	"POST /swarm/init":                    engine,
	"POST /swarm/join":                    engine,
	"/swarm":                              engine,
	"/swarm/":                             engine,
	"/services":                           engine,
	"/services/":                          engine,
	"/nodes":                              engine,
	"/nodes/":                             engine,
	"/tasks":                              engine,
	"/tasks/":                             engine,
	"/secrets":                            engine,
	"/secrets/":                           engine,
	"/configs":                            engine,
	"/configs/":                           engine,
	"GET /shoal/doctor":                   look,
	"GET /shoal/ports":                    look,
	"POST /shoal/containers/{name}/ports": engine,
	"POST /shoal/manifests/inspect":       look,
	"POST /shoal/manifests/push":          engine,
	"GET /shoal/sockets":                  look,
	"POST /shoal/sockets":                 engine,
	"DELETE /shoal/sockets/{name}":        engine,
	"GET /shoal/audit":                    engine,
	"GET /shoal/volumes/{name}/backup":    streamed,
	"POST /shoal/volumes/{name}/backup":   streamed,
	"POST /shoal/volumes/{name}/restore":  streamed,
	"POST /shoal/volumes/{name}/clone":    streamed,
	"POST /shoal/explain":                 look,
	"POST /shoal/import-docker":           engine,
}
