// Package logopts knows the options of every log driver: it parses and refuses them, with the names and defaults that
// Docker documents. The engine asks it when a container is made, the supervisor when it opens the log. It only decides;
// it must not open files, connect, or look at the host.
package logopts

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// The drivers.
const (
	Local    = "local"
	JSONFile = "json-file"
	None     = "none"
	Syslog   = "syslog"
	Journald = "journald"
	Fluentd  = "fluentd"
	GELF     = "gelf"
)

// Drivers lists all drivers.
var Drivers = []string{Local, JSONFile, None, Syslog, Journald, Fluentd, GELF}

// Options are a driver's options, understood. Parts that the driver does not have are zero.
type Options struct {
	Driver      string
	NonBlocking bool  // rather lose output than hold the container up
	MaxBuffer   int64 // bytes that wait at most: for the non-blocking mode, and for a remote that is slow
	Tag         string
	File        File // of the driver, or of the local copy of a remote driver
	NoCopy      bool // no local copy (cache-disabled)
	Syslog      *SyslogOptions
	Fluentd     *FluentdOptions
	GELF        *GELFOptions
}

// File bounds a log on disk.
type File struct {
	MaxSize  int64 // bytes of one file; 0 is no bound
	MaxFile  int   // number of files, the one being written included
	Compress bool  // the others are compressed
}

// DefaultFile is the bound when nothing is said: 5 files of 20 MB. Docker's json-file has none, and fills the disk.
var DefaultFile = File{MaxSize: 20 << 20, MaxFile: 5, Compress: true}

// maxBuffer is Docker's default of max-buffer-size.
const maxBuffer = 1 << 20

// Keys that every driver takes. labels, labels-regex, env and env-regex are evaluated by the daemon, which knows them.
var everyDriver = []string{"mode", "max-buffer-size", "tag", "labels", "labels-regex", "env", "env-regex"}

var remoteKeys = []string{"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}

var fileKeys = []string{"max-size", "max-file", "compress"}

var keys = map[string][]string{
	Local:    fileKeys,
	JSONFile: fileKeys,
	None:     {},
	Journald: remoteKeys,
	Syslog: append([]string{"syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert",
		"syslog-tls-key", "syslog-tls-skip-verify"}, remoteKeys...),
	Fluentd: append([]string{"fluentd-address", "fluentd-async", "fluentd-async-connect",
		"fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait",
		"fluentd-sub-second-precision", "fluentd-write-timeout"}, remoteKeys...),
	GELF: append([]string{"gelf-address", "gelf-compression-type", "gelf-compression-level", "gelf-tcp-max-reconnect",
		"gelf-tcp-reconnect-delay"}, remoteKeys...),
}

// Parse understands the options of a driver, or says what is wrong with which.
func Parse(driver string, opts map[string]string) (Options, error) {
	o := Options{Driver: driver, MaxBuffer: maxBuffer, File: DefaultFile}
	known, ok := keys[driver]
	if !ok {
		return o, errs.New(errs.Invalid, "unknown log driver %q: there are %s", driver, strings.Join(Drivers, ", "))
	}
	p := parser{driver: driver, opts: opts}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if !slices.Contains(known, k) && !slices.Contains(everyDriver, k) {
			all := slices.Sorted(slices.Values(append(slices.Clone(known), everyDriver...)))
			return o, errs.New(errs.Invalid, "unknown log opt %q for log driver %s: it takes %s", k, driver, strings.Join(all, ", "))
		}
	}
	switch mode := p.str("mode", "blocking"); mode {
	case "blocking":
		if _, there := opts["max-buffer-size"]; there {
			p.fail("max-buffer-size", "is only for mode=non-blocking")
		}
	case "non-blocking":
		o.NonBlocking = true
		o.MaxBuffer = p.size("max-buffer-size", maxBuffer)
		if o.MaxBuffer < 4<<10 && p.err == nil {
			p.fail("max-buffer-size", "must be at least 4k")
		}
	default:
		p.fail("mode", "must be blocking or non-blocking")
	}
	o.Tag = p.str("tag", "{{.ID}}")
	if err := CheckTag(o.Tag); err != nil {
		p.fail("tag", err.Error())
	}
	o.parseFile(&p)
	o.parseRemote(&p)
	return o, p.err
}

func (o *Options) parseFile(p *parser) {
	prefix := ""
	switch o.Driver {
	case None:
		return
	case Local:
	case JSONFile:
		o.File.Compress = false
	default:
		prefix = "cache-"
		o.NoCopy = p.boolean("cache-disabled", false)
	}
	o.File.MaxSize = p.size(prefix+"max-size", o.File.MaxSize)
	o.File.MaxFile = p.number(prefix+"max-file", o.File.MaxFile)
	o.File.Compress = p.boolean(prefix+"compress", o.File.Compress)
	if p.err != nil {
		return
	}
	if o.File.MaxFile < 1 {
		p.fail(prefix+"max-file", "must be 1 or more")
	}
	if o.File.MaxSize > 0 && o.File.MaxSize < 1<<10 {
		p.fail(prefix+"max-size", "must be at least 1k, or -1 for no bound")
	}
	if p.err == nil && o.File.MaxFile == 1 && p.boolean(prefix+"compress", false) && o.Driver == JSONFile {
		p.fail("compress", "needs max-file of 2 or more: the file being written is never compressed")
	}
}

// parser reads values and keeps the first trouble.
type parser struct {
	driver string
	opts   map[string]string
	err    error
}

func (p *parser) fail(key, why string) {
	if p.err == nil {
		p.err = errs.New(errs.Invalid, "log opt %s=%q of log driver %s: %s", key, p.opts[key], p.driver, why)
	}
}

func (p *parser) str(key, def string) string {
	if v, ok := p.opts[key]; ok && v != "" {
		return v
	}
	return def
}

func (p *parser) oneOf(key, def string, allowed ...string) string {
	v := p.str(key, def)
	if !slices.Contains(allowed, v) {
		p.fail(key, "must be one of "+strings.Join(allowed, ", "))
	}
	return v
}

func (p *parser) number(key string, def int) int {
	v, ok := p.opts[key]
	if !ok {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		p.fail(key, "is not a number")
	}
	return n
}

func (p *parser) boolean(key string, def bool) bool {
	v, ok := p.opts[key]
	if !ok {
		return def
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		p.fail(key, "must be true or false")
	}
	return b
}

func (p *parser) duration(key string, def time.Duration) time.Duration {
	v, ok := p.opts[key]
	if !ok {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		p.fail(key, "is not a duration such as 500ms or 10s")
	}
	return d
}

// size reads bytes with Docker's units (powers of 1024); -1 is no bound, given as 0.
func (p *parser) size(key string, def int64) int64 {
	v, ok := p.opts[key]
	if !ok {
		return def
	}
	n, err := Size(v)
	if err != nil {
		p.fail(key, err.Error())
	}
	return n
}

// Size reads "20m", "1.5g", "512k", "1024", "-1" (no bound, 0).
func Size(v string) (int64, error) {
	s := strings.ToLower(strings.TrimSpace(v))
	if s == "-1" {
		return 0, nil
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, "b"), "i")
	unit := float64(1)
	if n := len(s); n > 0 {
		if i := strings.IndexByte("kmgtp", s[n-1]); i >= 0 {
			s = s[:n-1]
			for range i + 1 {
				unit *= 1024
			}
		}
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || f < 0 || f*unit >= 1<<62 || f != f {
		return 0, fmt.Errorf("is not a size such as 20m")
	}
	if f == 0 {
		return 0, fmt.Errorf("must be more than 0, or -1 for no bound")
	}
	return int64(f * unit), nil
}
