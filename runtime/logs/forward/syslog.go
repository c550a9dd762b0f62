package forward

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

// syslog speaks the formats that Docker's syslog driver offers (RFC 3164, RFC 5424; framing of RFC 5425 with TLS).
type syslog struct {
	stream
	o    *logopts.SyslogOptions
	tag  string
	host string
	buf  bytes.Buffer
}

// Severities of RFC 5424.
const (
	severityError = 3
	severityInfo  = 6
)

func newSyslog(o *logopts.SyslogOptions, tag string) *syslog {
	s := &syslog{o: o, tag: tag, stream: stream{network: o.Network, address: o.Address}}
	s.host, _ = os.Hostname()
	if o.Network == "tcp+tls" {
		s.tls = &o.TLS
	}
	return s
}

// connect finds the host's own socket when no address is given.
func (s *syslog) connect() error {
	if s.o.Network == "unix" { // daemons listen for datagrams or streams at the same name
		return s.dialLocal(s.o.Address)
	}
	if s.o.Network != "" {
		return s.stream.connect()
	}
	var err error
	for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
		if err = s.dialLocal(path); err == nil {
			return nil
		}
	}
	return err
}

func (s *syslog) dialLocal(path string) error {
	s.close()
	var err error
	for _, network := range []string{"unixgram", "unix"} {
		if s.conn, err = net.DialTimeout(network, path, dialTimeout); err == nil {
			s.network = network
			return nil
		}
	}
	s.conn = nil
	return errs.New(errs.Unavailable, "connect to the syslog daemon at %s: %w", path, err)
}

func (s *syslog) send(e *entry) error {
	if len(e.line) == 0 { // as Docker: an empty message says nothing
		return nil
	}
	severity := severityInfo
	if e.stderr {
		severity = severityError
	}
	priority, pid := s.o.Facility<<3|severity, os.Getpid()
	s.buf.Reset()
	switch s.o.Format {
	case "rfc3164":
		fmt.Fprintf(&s.buf, "<%d>%s %s %s[%d]: %s", priority, e.at.Format(time.Stamp), s.host, s.tag, pid, e.line)
	case "rfc5424":
		fmt.Fprintf(&s.buf, "<%d>1 %s %s %s %d %s - %s", priority, e.at.Format(time.RFC3339), s.host, s.tag, pid, s.tag, e.line)
	case "rfc5424micro":
		fmt.Fprintf(&s.buf, "<%d>1 %s %s %s %d %s - %s", priority, e.at.Format("2006-01-02T15:04:05.000000Z07:00"), s.host, s.tag, pid, s.tag, e.line)
	default:
		fmt.Fprintf(&s.buf, "<%d>%s %s[%d]: %s", priority, e.at.Format(time.Stamp), s.tag, pid, e.line)
	}
	b := s.buf.Bytes()
	if s.tls != nil && (s.o.Format == "rfc5424" || s.o.Format == "rfc5424micro") {
		b = append(fmt.Appendf(nil, "%d ", len(b)), b...)
	} else {
		b = append(b, '\n')
	}
	return s.write(b, writeTimeout)
}

// journal speaks journald's native protocol: a datagram of NAME=value lines.
type journal struct {
	stream
	fixed []byte
	buf   bytes.Buffer
}

// journalSocket is where systemd-journald listens.
const journalSocket = "/run/systemd/journal/socket"

func newJournal(info *spec.LogInfo, tag string) *journal {
	j := &journal{stream: stream{network: "unixgram", address: journalSocket}}
	var b bytes.Buffer
	id := info.ContainerID
	short := id
	if len(short) > 12 {
		short = short[:12]
	}
	for _, f := range [][2]string{{"CONTAINER_ID", short}, {"CONTAINER_ID_FULL", id}, {"CONTAINER_NAME", trimSlash(info.ContainerName)},
		{"CONTAINER_TAG", tag}, {"IMAGE_NAME", info.ImageName}, {"SYSLOG_IDENTIFIER", tag}} {
		field(&b, f[0], []byte(f[1]))
	}
	for _, m := range []map[string]string{info.Labels, info.Env} {
		for k, v := range m {
			if name := journalName(k); name != "" {
				field(&b, name, []byte(v))
			}
		}
	}
	j.fixed = b.Bytes()
	return j
}

// journalName makes a field name of a label's: capitals, digits and underscores, not beginning with one.
func journalName(s string) string {
	b := bytes.ToUpper([]byte(s))
	for i, c := range b {
		if !(c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			b[i] = '_'
		}
	}
	return string(bytes.TrimLeft(b, "_"))
}

// field writes NAME=value, or with the binary form when the value has a newline.
func field(b *bytes.Buffer, name string, value []byte) {
	b.WriteString(name)
	if bytes.IndexByte(value, '\n') < 0 {
		b.WriteByte('=')
		b.Write(value)
		b.WriteByte('\n')
		return
	}
	b.WriteByte('\n')
	for i := range 8 {
		b.WriteByte(byte(uint64(len(value)) >> (8 * i)))
	}
	b.Write(value)
	b.WriteByte('\n')
}

func (j *journal) send(e *entry) error {
	j.buf.Reset()
	severity := "6"
	if e.stderr {
		severity = "3"
	}
	field(&j.buf, "PRIORITY", []byte(severity))
	field(&j.buf, "SYSLOG_TIMESTAMP", []byte(e.at.UTC().Format(time.RFC3339Nano)))
	if e.partial {
		field(&j.buf, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
	}
	if e.piece != nil {
		field(&j.buf, "CONTAINER_PARTIAL_ID", []byte(e.piece.id))
		field(&j.buf, "CONTAINER_PARTIAL_ORDINAL", strconv.AppendInt(nil, int64(e.piece.ordinal), 10))
		field(&j.buf, "CONTAINER_PARTIAL_LAST", strconv.AppendBool(nil, !e.partial))
	}
	field(&j.buf, "MESSAGE", e.line)
	j.buf.Write(j.fixed)
	return j.write(j.buf.Bytes(), writeTimeout)
}

func trimSlash(s string) string {
	if len(s) > 0 && s[0] == '/' {
		return s[1:]
	}
	return s
}
