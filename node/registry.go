package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/server"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/node/config"
)

// imageRegistry is a built-in registry that serves.
type imageRegistry struct {
	handler *server.Server
	http    *http.Server
	addr    net.Addr
	done    chan error
}

// startRegistry serves the store as a registry; dir is for the registry's own book.
func startRegistry(o config.RegistryServer, dir string, st *store.Store, client *registry.Client, log *slog.Logger) (*imageRegistry, error) {
	cfg := server.Config{Dir: dir, Store: st, ReadOnly: o.ReadOnly, Log: log}
	if o.Proxy != "" {
		cfg.Upstream = &server.Upstream{Client: client, Domain: o.Proxy}
	}
	if o.Users != "" {
		var err error
		if cfg.Users, err = server.ReadUsers(o.Users); err != nil {
			return nil, err
		}
	}
	l, err := registryListener(o, log)
	if err != nil {
		return nil, err
	}
	h, err := server.New(cfg)
	if err != nil {
		l.Close()
		return nil, err
	}
	r := &imageRegistry{handler: h, addr: l.Addr(), done: make(chan error, 1),
		http: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}}
	go func() {
		err := r.http.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		r.done <- err
	}()
	log.Info("the registry serves", "address", r.addr.String(), "tls", o.Cert != "", "users", o.Users != "", "upstream", o.Proxy, "read only", o.ReadOnly || o.Proxy != "")
	return r, nil
}

// registryListener opens the address. Whoever may push decides what others run: on a network nobody may without a name.
func registryListener(o config.RegistryServer, log *slog.Logger) (net.Listener, error) {
	if (o.Cert == "") != (o.Key == "") {
		return nil, errs.New(errs.Invalid, "serve the registry on %s: a certificate needs its key, and a key its certificate; give both", o.Listen)
	}
	l, err := net.Listen("tcp", o.Listen)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, errs.New(errs.Conflict, "serve the registry on %s: another program has this address (`ss -ltnp` shows which); stop it, or choose another", o.Listen)
	case err != nil:
		return nil, errs.Wrap(err, "serve the registry on %s; want HOST:PORT, such as 127.0.0.1:5000", o.Listen)
	}
	local := l.Addr().(*net.TCPAddr).IP.IsLoopback()
	switch {
	case !local && o.Users == "" && !o.ReadOnly && o.Proxy == "" && !o.Anonymous:
		l.Close()
		return nil, errs.New(errs.Forbidden, "serve the registry on %s: everybody who reaches this address could replace images; give it a file of users (made by `htpasswd -B`), make it read-only, or, if that is wanted, say so with the option anonymous", o.Listen)
	case !local && o.Cert == "":
		log.Warn("the registry is served without TLS: images and passwords can be read and changed on the way", "address", l.Addr().String())
	}
	if o.Cert == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		l.Close()
		return nil, errs.New(errs.Invalid, "read the registry's certificate %s and key %s: %w", o.Cert, o.Key, err)
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}), nil
}

func (r *imageRegistry) close(ctx context.Context) error {
	if r == nil {
		return nil
	}
	err := r.http.Shutdown(ctx)
	if err != nil {
		err = r.http.Close() // uploads that go on can be taken up again
	}
	return errors.Join(err, r.handler.Close())
}

// Registry is `shoald registry serve`: a registry in a process of its own, with a store of its own.
func Registry(args []string, out io.Writer) error {
	if len(args) == 0 || args[0] != "serve" {
		return errs.New(errs.Invalid, "usage: shoald registry serve [OPTIONS]; see shoald registry serve --help")
	}
	var o config.RegistryServer
	var root, driver string
	var insecure []string
	fs := pflag.NewFlagSet("registry serve", pflag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprintf(out, "Usage: shoal registry serve [OPTIONS]\n\nServe a container registry (OCI distribution specification 1.1).\n\nOptions:\n%s", fs.FlagUsages())
	}
	fs.StringVarP(&o.Listen, "listen", "l", "127.0.0.1:5000", "Address to serve")
	fs.StringVar(&root, "root", "/var/lib/shoal-registry", "Where the images are kept")
	fs.StringVar(&o.Users, "users", "", "File of names and bcrypt passwords, as htpasswd -B writes it; read again when it changes")
	fs.StringVar(&o.Cert, "tls-cert", "", "Certificate in PEM form")
	fs.StringVar(&o.Key, "tls-key", "", "Key in PEM form")
	fs.StringVar(&o.Proxy, "proxy", "", "Registry to stand before as a pull-through cache: docker.io, HOST[:PORT]")
	fs.StringSliceVar(&insecure, "insecure-registry", nil, "Upstream that may be spoken to without a valid certificate")
	fs.BoolVar(&o.ReadOnly, "read-only", false, "Refuse pushes and deletes")
	fs.BoolVar(&o.Anonymous, "anonymous", false, "Let everybody push, on a network too")
	if err := fs.Parse(args[1:]); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return errs.As(errs.Invalid, err)
	}
	if fs.NArg() > 0 {
		return errs.New(errs.Invalid, "registry serve takes options only, not %q", fs.Arg(0))
	}
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, unix.SIGTERM, unix.SIGINT)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getuid() != 0 {
		driver = store.DriverNative // nothing is unpacked; overlay would want root to find out whether it works
	}
	st := store.New(store.Config{Root: filepath.Join(root, "image"), Driver: driver, Log: log})
	defer st.Close()
	client := registry.New(registry.Config{Store: st, Log: log, Settings: func() registry.Settings {
		return registry.Settings{Insecure: insecure, CertsDirs: []string{"/etc/docker/certs.d", "/etc/shoal/certs.d"}}
	}})
	r, err := startRegistry(o, filepath.Join(root, "registry"), st, client, log)
	if err != nil {
		return err
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
	select {
	case <-sigs:
	case err := <-r.done:
		return errors.Join(err, r.close(context.Background()))
	}
	daemon.SdNotify(false, daemon.SdNotifyStopping)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.close(ctx)
}
