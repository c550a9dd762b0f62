package logopts

import (
	"strconv"
	"strings"
	"time"
)

// SyslogOptions say how to reach a syslog daemon and how to speak with it.
type SyslogOptions struct {
	Network  string // "" (the host's own socket), unix, unixgram, udp, tcp, tcp+tls
	Address  string // path or host:port
	Facility int
	Format   string // "" (the format of BSD syslog with a local time stamp), rfc3164, rfc5424, rfc5424micro
	TLS      TLSFiles
}

// TLSFiles name certificates on the host.
type TLSFiles struct {
	CA, Cert, Key string
	SkipVerify    bool
}

// FluentdOptions say how to reach a fluentd.
type FluentdOptions struct {
	Network      string // tcp, tls, unix
	Address      string
	BufferLimit  int64 // bytes
	RetryWait    time.Duration
	MaxRetries   int
	SubSecond    bool
	RequestAck   bool
	WriteTimeout time.Duration
	Async        bool // do not wait for the connection at the container's start
}

// GELFOptions say how to reach a GELF input.
type GELFOptions struct {
	Network        string // udp, tcp
	Address        string
	Compression    string // gzip, zlib, none (udp only)
	Level          int
	MaxReconnect   int           // tcp
	ReconnectDelay time.Duration // tcp
}

var facilities = []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"ntp", "security", "console", "solaris-cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

func (o *Options) parseRemote(p *parser) {
	switch o.Driver {
	case Syslog:
		s := &SyslogOptions{Facility: 3}
		s.Network, s.Address = p.address("syslog-address", "514", map[string]bool{"unix": false, "unixgram": false, "udp": true, "tcp": true, "tcp+tls": true})
		if v := p.str("syslog-facility", ""); v != "" {
			s.Facility = p.facility(v)
		}
		s.Format = p.oneOf("syslog-format", "", "", "rfc3164", "rfc5424", "rfc5424micro")
		s.TLS = TLSFiles{CA: p.str("syslog-tls-ca-cert", ""), Cert: p.str("syslog-tls-cert", ""), Key: p.str("syslog-tls-key", ""),
			SkipVerify: p.boolean("syslog-tls-skip-verify", p.opts["syslog-tls-skip-verify"] != "" && p.opts["syslog-tls-skip-verify"] != "false")}
		if s.Network != "tcp+tls" && (s.TLS.CA != "" || s.TLS.Cert != "" || s.TLS.Key != "") {
			p.fail("syslog-tls-ca-cert", "TLS needs a syslog-address that begins with tcp+tls://")
		}
		if (s.TLS.Cert == "") != (s.TLS.Key == "") {
			p.fail("syslog-tls-cert", "certificate and key are needed together")
		}
		o.Syslog = s
	case Fluentd:
		f := &FluentdOptions{Network: "tcp", Address: "127.0.0.1:24224"}
		if p.str("fluentd-address", "") != "" {
			f.Network, f.Address = p.address("fluentd-address", "24224", map[string]bool{"tcp": true, "tls": true, "unix": false})
		}
		f.Async = p.boolean("fluentd-async", p.boolean("fluentd-async-connect", false))
		f.BufferLimit = p.size("fluentd-buffer-limit", 8<<20)
		f.RetryWait = p.duration("fluentd-retry-wait", time.Second)
		f.MaxRetries = p.number("fluentd-max-retries", 1<<30)
		f.SubSecond = p.boolean("fluentd-sub-second-precision", false)
		f.RequestAck = p.boolean("fluentd-request-ack", false)
		f.WriteTimeout = p.duration("fluentd-write-timeout", 3*time.Second)
		o.Fluentd = f
	case GELF:
		g := &GELFOptions{}
		g.Network, g.Address = p.address("gelf-address", "", map[string]bool{"udp": true, "tcp": true})
		if g.Address == "" {
			p.fail("gelf-address", "is required, such as udp://192.0.2.1:12201")
		}
		g.Compression = p.oneOf("gelf-compression-type", "gzip", "gzip", "zlib", "none")
		g.Level = p.number("gelf-compression-level", 1)
		if g.Level < -1 || g.Level > 9 {
			p.fail("gelf-compression-level", "must be from -1 to 9")
		}
		g.MaxReconnect = p.number("gelf-tcp-max-reconnect", 3)
		g.ReconnectDelay = time.Duration(p.number("gelf-tcp-reconnect-delay", 1)) * time.Second
		for _, k := range []string{"gelf-compression-type", "gelf-compression-level"} {
			if _, there := p.opts[k]; there && g.Network == "tcp" {
				p.fail(k, "is only for udp")
			}
		}
		o.GELF = g
	}
}

func (p *parser) facility(v string) int {
	for i, name := range facilities {
		if v == name {
			return i
		}
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 23 {
		p.fail("syslog-facility", "must be a number from 0 to 23 or one of "+strings.Join(facilities, ", "))
	}
	return n
}

// address reads network://host[:port] or network:///path; hasHost says of each allowed network whether it is a host.
func (p *parser) address(key, defPort string, hasHost map[string]bool) (network, address string) {
	v := p.str(key, "")
	if v == "" {
		return "", ""
	}
	network, address, ok := strings.Cut(v, "://")
	if !ok { // fluentd takes "host:port"
		if !hasHost["tcp"] || key != "fluentd-address" {
			p.fail(key, "must look like tcp://host:port or unix:///path")
		}
		network, address = "tcp", v
	}
	host, allowed := hasHost[network]
	switch {
	case !allowed:
		p.fail(key, "this driver does not speak "+strconv.Quote(network))
	case !host:
		if !strings.HasPrefix(address, "/") {
			p.fail(key, "the socket's path must be absolute")
		}
		return network, address
	}
	address, path, _ := strings.Cut(address, "/")
	if path != "" {
		p.fail(key, "nothing may follow the port")
	}
	name, port := address, ""
	if i := strings.LastIndexByte(address, ':'); i >= 0 && !strings.HasSuffix(address, "]") {
		name, port = address[:i], address[i+1:]
	}
	if strings.Count(address, ":") > 1 && !strings.Contains(address, "]") { // bare IPv6
		name, port = "["+address+"]", ""
	}
	if port == "" {
		port = defPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		p.fail(key, "must name a port, such as "+network+"://"+name+":514")
	}
	if name == "" {
		p.fail(key, "must name a host")
	}
	return network, name + ":" + port
}

// NeedsTLS says whether the log server is reached by TLS.
func (o *Options) NeedsTLS() bool {
	return o.Syslog != nil && o.Syslog.Network == "tcp+tls" || o.Fluentd != nil && o.Fluentd.Network == "tls"
}
