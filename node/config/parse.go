package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

type (
	netipPrefix = netip.Prefix
	netipAddr   = netip.Addr
)

func setDebug(c *Config, v string) error {
	on, err := parseBool(v)
	if on {
		c.Daemon.LogLevel = "debug"
	}
	return err
}

func setPidsLimit(c *Config, v string) (err error) {
	if c.Container.Defaults.PidsLimit, err = strconv.ParseInt(v, 10, 64); err != nil {
		err = fmt.Errorf("want a whole number, 0 for no limit, got %q", v)
	}
	return err
}

// Actions are what the command line asks for instead of running the daemon.
type Actions struct {
	Version  bool
	Validate bool
}

// Parse reads the command line (without the program's name) and the configuration file that it, or the default, names.
// A missing file is an error only when it was named. pflag.ErrHelp is returned after the usage went to out.
func Parse(args []string, out io.Writer) (Config, Actions, error) {
	c := Default()
	var act Actions
	given := map[string][]string{}
	fl := pflag.NewFlagSet("shoald", pflag.ContinueOnError)
	fl.SetOutput(out)
	fl.Usage = func() {
		fmt.Fprintf(out, "Usage: shoald [OPTIONS]\n\nThe daemon of Shoal, a container engine.\n\n"+
			"shoald cleanup [OPTIONS] stops the containers of a daemon that has ended and removes what it left for the next one: "+
			"bridges, rules, mounts, control groups. The data stays.\n\nOptions:\n%s", fl.FlagUsages())
	}
	for i := range options {
		if o := &options[i]; o.flag != "" {
			addFlag(fl, o, given)
		}
	}
	fl.StringVar(&c.Daemon.ConfigFile, "config-file", c.Daemon.ConfigFile, "Configuration file")
	fl.BoolVarP(&act.Version, "version", "v", false, "Print the version and end")
	fl.BoolVar(&act.Validate, "validate", false, "Check the configuration and end")
	if err := fl.Parse(args); err != nil {
		return c, act, err
	}
	if fl.NArg() > 0 {
		return c, act, errs.New(errs.Invalid, "shoald takes no arguments, got %q; see shoald --help", fl.Arg(0))
	}
	named := fl.Changed("config-file")
	fromFile, err := readFile(c.Daemon.ConfigFile, named)
	if err != nil {
		return c, act, err
	}
	if err := apply(&c, given, fromFile); err != nil {
		return c, act, err
	}
	return c, act, c.check()
}

// Reload reads the configuration file again with the same command line.
func Reload(args []string) (Config, error) {
	c, _, err := Parse(args, io.Discard)
	return c, err
}

type flagValue struct {
	o     *option
	given map[string][]string
}

func (f *flagValue) String() string { return "" }
func (f *flagValue) Type() string {
	if f.o.kind == list || f.o.kind == raw {
		return "list"
	}
	if f.o.kind == boolean {
		return "bool"
	}
	return "string"
}
func (f *flagValue) Set(v string) error {
	if f.o.kind == boolean {
		if _, err := parseBool(v); err != nil {
			return err
		}
	}
	if f.o.kind == text || f.o.kind == boolean {
		f.given[f.o.flag] = []string{v}
	} else {
		f.given[f.o.flag] = append(f.given[f.o.flag], v)
	}
	return nil
}

func addFlag(fl *pflag.FlagSet, o *option, given map[string][]string) {
	f := fl.VarPF(&flagValue{o, given}, o.flag, o.short, o.help)
	if o.kind == boolean {
		f.NoOptDefVal = "true"
	}
	if o.set == nil {
		f.Hidden = true
	}
}

func readFile(path string, named bool) (map[string][]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the configuration: %w", err)
	}
	got, err := decode(data)
	if err != nil {
		return nil, errs.New(errs.Invalid, "configuration file %s: %w", path, err)
	}
	return got, nil
}

// decode reads daemon.json into texts per option key. An empty file is an empty configuration.
func decode(data []byte) (map[string][]string, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	var m map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("not a JSON object of options (near byte %d): %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the JSON object at byte %d", dec.InputOffset())
	}
	got := map[string][]string{}
	var unknown []string
	for key, value := range m {
		o := byKey(key)
		if o == nil {
			unknown = append(unknown, key)
			continue
		}
		vs, err := values(o, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		got[o.name()] = vs
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("these keys are no options: %s; shoald --help lists the options", strings.Join(unknown, ", "))
	}
	return got, nil
}

func byKey(key string) *option {
	for i := range options {
		if options[i].key == key || key != "" && options[i].oldKey == key {
			return &options[i]
		}
	}
	return nil
}

// values turns a JSON value into the texts that flags would have given.
func values(o *option, v json.RawMessage) ([]string, error) {
	v = bytes.TrimSpace(v)
	switch {
	case bytes.Equal(v, []byte("null")):
		return nil, nil
	case len(v) > 0 && v[0] == '[' && o.kind != text && o.kind != boolean:
		var items []json.RawMessage
		if err := json.Unmarshal(v, &items); err != nil {
			return nil, err
		}
		var vs []string
		for _, item := range items {
			vs = append(vs, scalar(item))
		}
		return vs, nil
	case len(v) > 0 && v[0] == '{' && o.kind == list:
		var items map[string]json.RawMessage
		if err := json.Unmarshal(v, &items); err != nil {
			return nil, err
		}
		var vs []string
		for k, item := range items {
			if o.flag == "default-ulimit" {
				vs = append(vs, string(item))
				continue
			}
			vs = append(vs, k+"="+scalar(item))
		}
		slices.Sort(vs)
		return vs, nil
	case len(v) > 0 && (v[0] == '[' || v[0] == '{') && o.kind != raw:
		return nil, fmt.Errorf("want a single value, got %s", v)
	}
	return []string{scalar(v)}, nil
}

func scalar(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(bytes.TrimSpace(v))
}

func apply(c *Config, given, fromFile map[string][]string) error {
	for i := range options {
		o := &options[i]
		vs, onLine := given[o.flag]
		fvs, inFile := fromFile[o.name()]
		if onLine && inFile && o.kind != list && o.kind != raw {
			return errs.New(errs.Invalid, "%s is given on the command line (%s) and in %s (%s); leave one out",
				o.name(), strings.Join(vs, " "), c.Daemon.ConfigFile, strings.Join(fvs, " "))
		}
		for _, v := range slices.Concat(vs, fvs) {
			if o.refused != "" {
				if v != o.off {
					return errs.New(errs.Invalid, "%s=%s: %s", o.name(), v, o.refused)
				}
				break
			}
			if o.set == nil {
				c.Warnings = append(c.Warnings, fmt.Sprintf("%s has no effect: %s", o.name(), o.help))
				break
			}
			if err := o.set(c, v); err != nil {
				return errs.New(errs.Invalid, "%s=%s: %w", o.name(), v, err)
			}
		}
	}
	return nil
}

// check looks at options together.
func (c *Config) check() error {
	a := &c.API
	if err := a.checkServed(); err != nil {
		return err
	}
	if _, err := logopts.Parse(c.Container.LogDriver, c.Container.LogOpts); err != nil {
		return errs.Wrap(err, "--log-driver and --log-opt")
	}
	if p := c.Network.Publish; p.HostPolicy && !p.UserlandProxy {
		return errs.New(errs.Invalid, "--publish-policy=host needs --userland-proxy: what the host's firewall lets in is carried on by the daemon")
	}
	if p := c.Network.Publish; p.Filter && !p.Filter6 {
		return errs.New(errs.Invalid, "--ip6tables=false is not offered alone: IPv4 and IPv6 are in one table of the packet filter, and without it containers would be reachable over IPv6; leave it out, or use --iptables=false for both")
	}
	for _, h := range a.Hosts {
		if strings.HasPrefix(h, "tcp://") {
			if err := a.CheckTCP(h); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{c.Daemon.DataRoot, c.Daemon.ExecRoot} {
		if !strings.HasPrefix(dir, "/") {
			return errs.New(errs.Invalid, "%q is not an absolute path; name --data-root and --exec-root from /", dir)
		}
	}
	if err := c.Daemon.checkRoot(); err != nil {
		return err
	}
	if _, ok := c.Container.Runtimes[c.Container.DefaultRuntime]; !ok && c.Container.DefaultRuntime != "shoal" && c.Container.DefaultRuntime != "runc" {
		return errs.New(errs.Invalid, "the default runtime %q is not known; add it with --add-runtime %[1]s=/path", c.Container.DefaultRuntime)
	}
	return nil
}

// checkRoot refuses a place for layers that cannot be named in the options of a mount, where commas and colons part the names.
func (d *Daemon) checkRoot() error {
	if copies := d.StorageDriver == "native" || d.StorageDriver == "vfs"; !copies && strings.ContainsAny(d.DataRoot, `,:\`) {
		return errs.New(errs.Invalid, "--data-root %q has a comma, colon or backslash, which overlay mounts cannot have in their names; choose another, "+
			"or keep plain copies with --storage-driver vfs", d.DataRoot)
	}
	return nil
}

// CheckTCP refuses a TCP address that would be served to everybody, unless that was asked for by name.
func (a *API) CheckTCP(what string) error {
	if a.TLSVerify || a.AllowPlainTCP {
		return nil
	}
	return errs.New(errs.Forbidden, "%s without client certificates would make everybody who reaches it root on this machine; "+
		"use --tlsverify with --tlscacert, --tlscert and --tlskey, or --allow-plain-tcp if the network is yours alone", what)
}
