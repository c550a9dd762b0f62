package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/observe/health"
)

// listen opens every address of the API. On error those already open are closed.
func listen(c config.API, log *slog.Logger) (ls []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range ls {
				l.Close()
			}
		}
	}()
	for _, host := range c.Hosts {
		proto, addr, ok := strings.Cut(host, "://")
		if !ok {
			return ls, errs.New(errs.Invalid, "listen on %q: want unix://PATH, tcp://HOST:PORT or fd://", host)
		}
		var more []net.Listener
		switch proto {
		case "unix":
			more, err = one(listenUnix(addr, c.Group, log))
		case "tcp":
			more, err = one(listenTCP(addr, c, log))
		case "fd":
			more, err = activated(c, log)
		default:
			err = errs.New(errs.Invalid, "listen on %q: %s is not offered; want unix, tcp or fd", host, proto)
		}
		ls = append(ls, more...)
		if err != nil {
			return ls, err
		}
	}
	return ls, nil
}

func one(l net.Listener, err error) ([]net.Listener, error) {
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

func activated(c config.API, log *slog.Logger) ([]net.Listener, error) {
	ls, err := activation.Listeners()
	if err != nil {
		return nil, errs.Wrap(err, "take over the sockets of systemd")
	}
	ls = compact(ls)
	if len(ls) == 0 {
		return nil, errs.New(errs.Invalid, "fd:// is for socket activation, but systemd handed over no socket; start shoald by its socket unit or use unix://")
	}
	return guardActivated(ls, c, log)
}

// guardActivated gives TCP sockets of systemd the TLS that tcp:// addresses have, or refuses them for the same reason.
func guardActivated(ls []net.Listener, c config.API, log *slog.Logger) (out []net.Listener, err error) {
	for i, l := range ls {
		if _, tcp := l.Addr().(*net.TCPAddr); tcp {
			if err = c.CheckTCP("the socket " + l.Addr().String() + " of systemd"); err == nil {
				l, err = secure(l, c, log)
			}
			if err != nil {
				for _, rest := range ls[i:] {
					rest.Close()
				}
				return out, err
			}
		}
		out = append(out, l)
	}
	return out, nil
}

func compact(ls []net.Listener) (kept []net.Listener) {
	for _, l := range ls {
		if l != nil {
			kept = append(kept, l)
		}
	}
	return kept
}

func listenUnix(path, group string, log *slog.Logger) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, errs.New(errs.Conflict, "%s is served by another process; stop it, or give this daemon another --host", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeSocket == 0 {
		return nil, errs.New(errs.Conflict, "%s is there and is no socket; remove it, or give this daemon another --host", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// The mode counts from the first moment: nobody else may connect before the group is set. Umask is of the whole
	// process, so this runs at start, before anything else makes files.
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, errs.Wrap(err, "listen on unix://%s", path)
	}
	gid, err := groupID(group)
	if err != nil {
		if group != config.Default().API.Group && group != "" {
			l.Close()
			return nil, err
		}
		log.Debug("the socket is for root only", "reason", err)
		return l, nil
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func groupID(name string) (int, error) {
	if gid, err := strconv.Atoi(name); err == nil {
		return gid, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, errs.New(errs.NotFound, "the group %q for the socket does not exist; make it (groupadd %[1]s) or name another with --group", name)
	}
	return strconv.Atoi(g.Gid)
}

func listenTCP(addr string, c config.API, log *slog.Logger) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, errs.Wrap(err, "listen on tcp://%s", addr)
	}
	out, err := secure(l, c, log)
	if err != nil {
		l.Close()
	}
	return out, err
}

// secure puts TLS before a TCP listener as it is configured, and warns loudly of what is open.
func secure(l net.Listener, c config.API, log *slog.Logger) (net.Listener, error) {
	const open = "EVERYBODY WHO REACHES THIS ADDRESS IS ROOT ON THIS MACHINE: "
	addr := "tcp://" + l.Addr().String()
	if !c.TLS {
		health.Log(log, "api-open", open+"the API is served without client certificates", "address", addr)
		return l, nil
	}
	cfg, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	if !c.TLSVerify {
		health.Log(log, "api-open", open+"clients need no certificate", "address", addr)
	}
	return tls.NewListener(l, cfg), nil
}

func tlsConfig(c config.API) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read --tlscert %s and --tlskey %s: %w", c.Cert, c.Key, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if c.TLSVerify {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, errs.New(errs.Invalid, "read --tlscacert: %w", err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, errs.New(errs.Invalid, "--tlscacert %s holds no certificate", c.CACert)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, nil
}
