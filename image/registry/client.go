package registry

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/log"
	"github.com/moby/moby/api/types/registry"
	"github.com/sirupsen/logrus"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/model"
)

// Settings are what an administrator decides about registries. The zero value of a number means its default.
type Settings struct {
	Insecure  []string      // "host[:port]", "host/path" or a network in CIDR notation: TLS is not verified, plain HTTP is tried
	Mirrors   []string      // "URL" stands before Docker Hub; "PREFIX=URL" before the repositories below the prefix
	CertsDirs []string      // directories with HOST[:PORT]/{*.crt, NAME.cert and NAME.key}, as /etc/docker/certs.d
	Downloads int           // layers fetched at once by one pull; 3
	Uploads   int           // layers sent at once by one push; 5
	Attempts  int           // tries for a layer; 5
	Stall     time.Duration // silence of a registry in the middle of an answer that ends the try; one minute
}

func (s Settings) filled() Settings {
	for _, d := range []struct {
		value *int
		or    int
	}{{&s.Downloads, 3}, {&s.Uploads, 5}, {&s.Attempts, 5}} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	if s.Stall <= 0 {
		s.Stall = time.Minute
	}
	return s
}

// Config is what a client is made of.
type Config struct {
	Store    *store.Store
	Settings func() Settings // asked at each operation, so that a reload counts at once; nil: all defaults
	Log      *slog.Logger    // nil: nowhere
	Clock    clock.Clock     // nil: the machine's
	// Builtin gives the image that is built in under a name, for when no registry can be reached; nil: none are.
	Builtin func(ctx context.Context, ref, platform string) (model.Image, bool)
}

// Client talks to registries. It is safe for concurrent use and keeps no connection open between operations.
type Client struct{ cfg Config }

// New makes a client.
func New(cfg Config) *Client {
	if cfg.Settings == nil {
		cfg.Settings = func() Settings { return Settings{} }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	return &Client{cfg: cfg}
}

// operation is one pull, push, login or search: its connections, its credentials, its listener.
type operation struct {
	*Client
	settings Settings
	ref      model.Reference
	auth     *registry.AuthConfig
	tell     func(model.ImageProgress)
	tracker  docker.StatusTracker
	home     docker.RegistryHost // the registry itself, once resolver was called

	overTLS atomic.Bool // the registry was

	mu         sync.Mutex
	transports []*http.Transport
	warned     map[string]bool
}

func (c *Client) begin(ref model.Reference, auth *registry.AuthConfig, tell func(model.ImageProgress)) *operation {
	if tell == nil {
		tell = func(model.ImageProgress) {}
	}
	return &operation{Client: c, settings: c.cfg.Settings().filled(), ref: ref, auth: auth, tell: tell,
		tracker: docker.NewInMemoryTracker(), warned: map[string]bool{}}
}

// end closes the operation's connections: between operations nothing is left that would wake the daemon.
func (o *operation) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.transports {
		t.CloseIdleConnections()
	}
}

func (o *operation) say(action string) { o.tell(model.ImageProgress{Action: action}) }

// resolver makes containerd's resolver for the operation's repository.
func (o *operation) resolver() (remotes.Resolver, error) {
	hosts, err := o.hosts()
	if err != nil {
		return nil, err
	}
	o.home = hosts[len(hosts)-1]
	return docker.NewResolver(docker.ResolverOptions{
		Hosts:          func(string) ([]docker.RegistryHost, error) { return hosts, nil },
		Headers:        http.Header{"User-Agent": {userAgent()}},
		Tracker:        o.tracker,
		WarningHandler: o,
	}), nil
}

// Warn passes on what a registry wants people to read, once each.
func (o *operation) Warn(_ context.Context, _ docker.WarningSource, warning string) {
	o.sayOnce("Warning from " + o.ref.Domain + ": " + warning)
}

func (o *operation) sayOnce(text string) {
	o.mu.Lock()
	said := o.warned[text]
	o.warned[text] = true
	o.mu.Unlock()
	if !said {
		o.say(text)
	}
}

func userAgent() string { return "shoal/" + version.Version }

// quiet keeps containerd's own log lines about single requests out of ours: what matters comes back as an error. What is
// asked for is a document unless said otherwise.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetLevel(logrus.PanicLevel)
	ctx = context.WithValue(ctx, expect{}, expectDocument)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

// final is an error of a try after which there shall be no other.
type final struct{ error }

// again runs try until it works, fails for good, or the attempts are used up; it waits between them, longer each time.
func (o *operation) again(ctx context.Context, waiting func(d time.Duration, err error), try func() error) error {
	for n := 1; ; n++ {
		err := try()
		if f, ok := err.(final); ok {
			return f.error
		}
		if err == nil || ctx.Err() != nil || n >= o.settings.Attempts || !transient(err) {
			return err
		}
		d := backoff(n)
		if waiting != nil {
			waiting(d, err)
		}
		if err := o.wait(ctx, d); err != nil {
			return err
		}
	}
}

// backoff is half a second, doubled each time up to 15 seconds, with a third of chance so that many do not come at once.
func backoff(n int) time.Duration {
	d := min(500*time.Millisecond<<min(n-1, 10), 15*time.Second)
	return d - d/6 + rand.N(d/3)
}

func (o *operation) wait(ctx context.Context, d time.Duration) error {
	woken := make(chan struct{})
	stop := o.cfg.Clock.AfterFunc(d, func() { close(woken) })
	defer stop()
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
