package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// explainTLS says what is wrong with which certificate and what to do, "" when TLS is not the trouble.
func explainTLS(err error, secured bool) string {
	var expired x509.CertificateInvalidError
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var alert tls.AlertError
	switch text := err.Error(); {
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		if now := time.Now(); now.Before(expired.Cert.NotBefore) {
			return fmt.Sprintf("the engine's certificate is valid from %s only: check this machine's clock, or have the certificate made anew", expired.Cert.NotBefore.Format(time.RFC3339))
		}
		return fmt.Sprintf("the engine's certificate has expired on %s: have it made anew there (and check this machine's clock)", expired.Cert.NotAfter.Format(time.RFC3339))
	case errors.As(err, &name):
		return fmt.Sprintf("the engine's certificate is not for %q but for %s: use a name or address that is in it, or have it made anew with this one", name.Host, namesOf(name.Certificate))
	case errors.As(err, &unknown):
		return "the engine's certificate is not signed by the authority given by --tlscacert, or ca.pem in DOCKER_CERT_PATH: is it the CA of that engine?"
	case errors.As(err, &expired):
		return "the engine's certificate cannot be used: " + expired.Error()
	case strings.Contains(text, "certificate required"):
		return "the engine asks for a client certificate and got none that its CA has signed: name it with --tlscert and --tlskey, or put cert.pem and key.pem into DOCKER_CERT_PATH"
	case strings.Contains(text, "expired certificate"):
		return "the engine says that the client certificate (--tlscert) has expired: have it made anew"
	case strings.Contains(text, "unknown certificate authority"), strings.Contains(text, "bad certificate"), strings.Contains(text, "unknown certificate"):
		return "the engine does not accept the client certificate (--tlscert): it must be signed by the CA that the engine was given by --tlscacert, and be valid"
	case secured && strings.Contains(text, "HTTP response to HTTPS client"):
		return "the engine there speaks without TLS: leave --tls, --tlsverify, DOCKER_TLS and DOCKER_TLS_VERIFY out (without --tls everybody on the way reads along)"
	case errors.As(err, &alert), secured && strings.Contains(text, "tls: "):
		return text + "; check that both sides have the certificates that belong together"
	}
	return ""
}

// namesOf lists what a certificate is for.
func namesOf(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names, ", ")
}
