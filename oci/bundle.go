package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/privilege"
	"github.com/shoalhq/shoal/runtime/spec"
)

const configFile = "config.json"

func bundleValidate(fs *pflag.FlagSet) func(context.Context, []string, io.Writer) (int, error) {
	r := newReport(fs)
	return func(_ context.Context, args []string, out io.Writer) (int, error) {
		if err := checkFormat(*r.format); err != nil {
			return exitUsage, err
		}
		r.Path = args[0]
		dir := args[0]
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return exitUsage, errs.New(errs.NotFound, "%s is no directory: a bundle is one, with %s and the root filesystem in it", dir, configFile)
		}
		data, err := os.ReadFile(filepath.Join(dir, configFile))
		if err != nil {
			return exitUnsound, errs.New(errs.NotFound, "the bundle has no readable %s: %w", configFile, err)
		}
		s, err := spec.Parse(data)
		if err != nil {
			return exitUnsound, err
		}
		b := &bundleValidator{report: r, dir: dir, s: s}
		b.unknown(data)
		for _, err := range spec.Problems(s) {
			b.wrong(configFile, "%s", strings.TrimPrefix(err.Error(), "config.json: "))
		}
		b.host()
		return r.write(out)
	}
}

// bundleValidator compares a configuration with this machine.
type bundleValidator struct {
	*report
	dir string
	s   *specs.Spec
}

// unknown names the first field that the specification does not know: mostly a word misspelt.
func (b *bundleValidator) unknown(data []byte) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var s specs.Spec
	if err := d.Decode(&s); err != nil && strings.Contains(err.Error(), "unknown field") {
		b.warn(configFile, "%s is not in the specification %s: runtimes ignore it", strings.TrimPrefix(err.Error(), "json: "), specs.Version)
	}
}

func (b *bundleValidator) host() {
	s := b.s
	if s.Root != nil && s.Root.Path != "" {
		b.root(filepath.Join(b.dir, s.Root.Path), s.Root.Path)
	}
	for i, m := range s.Mounts {
		where := fmt.Sprintf("mounts[%d] (%s)", i, m.Destination)
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			source := m.Source
			if !filepath.IsAbs(source) {
				source = filepath.Join(b.dir, source)
			}
			if _, err := os.Stat(source); err != nil {
				b.wrong(where, "source: %v", err)
			}
		}
		if !filepath.IsAbs(m.Destination) {
			b.warn(where, "destination is not absolute; runtimes take it from the root")
		}
	}
	if s.Hooks != nil {
		for name, list := range map[string][]specs.Hook{"prestart": s.Hooks.Prestart, "createRuntime": s.Hooks.CreateRuntime, //nolint:staticcheck // still allowed
			"createContainer": s.Hooks.CreateContainer, "poststart": s.Hooks.Poststart, "poststop": s.Hooks.Poststop} {
			for i, h := range list {
				if st, err := os.Stat(h.Path); err != nil {
					b.wrong(fmt.Sprintf("hooks.%s[%d]", name, i), "%v", err)
				} else if st.Mode()&0o111 == 0 {
					b.wrong(fmt.Sprintf("hooks.%s[%d]", name, i), "%s is not executable", h.Path)
				}
			}
		}
	}
	if s.Linux != nil {
		for _, n := range s.Linux.Namespaces {
			if _, err := os.Stat(n.Path); n.Path != "" && err != nil {
				b.wrong("linux.namespaces", "%s: %v", n.Type, err)
			}
		}
	}
	if s.Process != nil {
		b.process()
	}
}

func (b *bundleValidator) process() {
	p := b.s.Process
	if p.Capabilities != nil {
		known := privilege.CapNames()
		for _, set := range [][]string{p.Capabilities.Bounding, p.Capabilities.Effective, p.Capabilities.Permitted, p.Capabilities.Inheritable, p.Capabilities.Ambient} {
			for _, c := range set {
				if !slices.Contains(known, c) {
					b.wrong("process.capabilities", "%q is no capability", c)
				}
			}
		}
		for _, c := range p.Capabilities.Ambient {
			if !slices.Contains(p.Capabilities.Permitted, c) || !slices.Contains(p.Capabilities.Inheritable, c) {
				b.warn("process.capabilities", "%s is ambient, but not permitted and inheritable: the kernel refuses it", c)
			}
		}
	}
	for i, e := range p.Env {
		if !strings.Contains(e, "=") {
			b.warn(fmt.Sprintf("process.env[%d]", i), "%q is not NAME=VALUE", e)
		}
	}
}

// root looks at the root filesystem, and whether the program is there. Links are resolved as the container will.
func (b *bundleValidator) root(dir, said string) {
	if filepath.IsAbs(said) {
		dir = said
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.wrong("root.path", "%v", err)
		return
	}
	defer root.Close()
	p := b.s.Process
	if p == nil || len(p.Args) == 0 || p.Args[0] == "" {
		return
	}
	var tried []string
	for _, name := range programPaths(p) {
		st, err := statIn(dir, name)
		if err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return
		}
		switch {
		case err == nil && st.IsDir():
			tried = append(tried, name+" is a directory")
		case err == nil:
			tried = append(tried, name+" is not executable")
		default:
			tried = append(tried, name+" is not there")
		}
	}
	for _, m := range b.s.Mounts {
		if m.Destination != "/proc" && m.Destination != "/sys" && !strings.HasPrefix(m.Destination, "/dev") && !strings.HasPrefix(m.Destination, "/sys/") {
			b.warn("process.args", "the program %q is not in the root filesystem (%s); a mount may bring it", p.Args[0], strings.Join(tried, ", "))
			return
		}
	}
	b.wrong("process.args", "the program %q cannot be run: %s", p.Args[0], strings.Join(tried, ", "))
}

// programPaths are the places where the program may be, as execvpe looks for it.
func programPaths(p *specs.Process) []string {
	name := p.Args[0]
	switch {
	case filepath.IsAbs(name):
		return []string{name}
	case strings.Contains(name, "/"):
		return []string{filepath.Join("/", p.Cwd, name)}
	}
	var out []string
	for _, e := range p.Env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			for _, dir := range filepath.SplitList(list) {
				out = append(out, filepath.Join("/", dir, name))
			}
		}
	}
	if out == nil {
		out = []string{"(PATH is not set) " + name}
	}
	return out
}
