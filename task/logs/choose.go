package logs

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

// JournalSocket is where systemd-journald listens.
const JournalSocket = "/run/systemd/journal/socket"

// Validate says why a log driver or its options cannot work here.
func Validate(driver string, opts map[string]string) error {
	o, err := logopts.Parse(driver, opts)
	if err != nil {
		return err
	}
	for _, key := range []string{"labels-regex", "env-regex"} {
		if v := opts[key]; v != "" {
			if _, err := regexp.Compile(v); err != nil {
				return errs.New(errs.Invalid, "log opt %s=%q: %w", key, v, err)
			}
		}
	}
	switch {
	case driver == logopts.Journald:
		if _, err := os.Stat(JournalSocket); err != nil {
			return errs.New(errs.Unsupported, "log driver journald: there is no systemd-journald on this host (%s is missing): choose another driver", JournalSocket)
		}
	case driver == logopts.Syslog && o.Syslog.Network == "":
		if !slices.ContainsFunc([]string{"/dev/log", "/var/run/syslog", "/var/run/log"}, exists) {
			return errs.New(errs.Unsupported, "log driver syslog: no syslog daemon listens on this host (/dev/log is missing): give its address with --log-opt syslog-address=udp://host:514")
		}
	case driver == logopts.GELF || driver == logopts.Fluentd || driver == logopts.Syslog:
		for _, f := range tlsFiles(o) {
			if f != "" && !exists(f) {
				return errs.New(errs.Invalid, "log driver %s: the file %s does not exist", driver, f)
			}
		}
	}
	return nil
}

func tlsFiles(o logopts.Options) []string {
	if o.Syslog == nil {
		return nil
	}
	return []string{o.Syslog.TLS.CA, o.Syslog.TLS.Cert, o.Syslog.TLS.Key}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Choose picks the labels and environment variables that the options labels, labels-regex, env and env-regex name.
func Choose(opts, labels map[string]string, env []string) (chosenLabels, chosenEnv map[string]string) {
	vars := map[string]string{}
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok {
			vars[k] = v
		}
	}
	return choose(labels, opts["labels"], opts["labels-regex"]), choose(vars, opts["env"], opts["env-regex"])
}

func choose(from map[string]string, list, pattern string) map[string]string {
	var out map[string]string
	add := func(k, v string) {
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	if list != "" {
		for _, k := range strings.Split(list, ",") {
			if v, ok := from[strings.TrimSpace(k)]; ok {
				add(strings.TrimSpace(k), v)
			}
		}
	}
	if pattern != "" {
		if re, err := regexp.Compile(pattern); err == nil {
			for k, v := range from {
				if re.MatchString(k) {
					add(k, v)
				}
			}
		}
	}
	return out
}
