// Package tlsdial gives forwarders TLS. Only programs that link crypto/tls anyway (the daemon) import it; shoal-runtime
// must not, because TLS doubles what a process costs at its start.
package tlsdial

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/logs/forward"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

// Main is a forwarder with TLS: the verb `shoald log-forward`.
func Main() int {
	forward.DialTLS = dial
	return forward.Main()
}

func dial(address string, files logopts.TLSFiles, timeout time.Duration) (net.Conn, error) {
	cfg := &tls.Config{InsecureSkipVerify: files.SkipVerify, MinVersion: tls.VersionTLS12}
	if files.CA != "" {
		data, err := os.ReadFile(files.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(data) {
			return nil, errs.New(errs.Invalid, "%s has no certificate in PEM form", files.CA)
		}
	}
	if files.Cert != "" {
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, "tcp", address, cfg)
}
