package buildclient

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/distribution/reference"
	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/docker/go-units"
	bkclient "github.com/moby/buildkit/client"
	bkflags "github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	moby "github.com/moby/moby/client"
	"github.com/tonistiigi/fsutil"

	"github.com/shoalhq/shoal/cli/buildflags"
	"github.com/shoalhq/shoal/lib/errs"
)

var pingOptions = moby.PingOptions{}

// plan is a build on its way into BuildKit's words.
type plan struct {
	opt   *bkclient.SolveOpt
	attrs map[string]string
	stdin *bufio.Reader
	undo  []func()
}

// solveOptions says the request in BuildKit's words. done removes temporary files.
func solveOptions(r *buildflags.Request) (*bkclient.SolveOpt, func(), error) {
	p := &plan{attrs: map[string]string{"image-resolve-mode": "local"}, stdin: bufio.NewReader(os.Stdin)}
	p.opt = &bkclient.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: p.attrs, LocalMounts: map[string]fsutil.FS{}, OCIStores: map[string]content.Store{}}
	done := func() {
		for _, f := range p.undo {
			f()
		}
	}
	for _, step := range []func(*buildflags.Request) error{p.context, p.source, p.options, p.limits, p.attachables, p.outputs} {
		if err := step(r); err != nil {
			done()
			return nil, nil, err
		}
	}
	return p.opt, done, nil
}

func isURL(s string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "git@", "github.com/", "ssh://"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// context finds the context and the Dockerfile.
func (p *plan) context(r *buildflags.Request) error {
	file := r.Source.File
	switch {
	case r.Context == "-" && file == "-":
		return errTwoStdin
	case r.Context == "-":
		return p.fromStdin(file)
	case isURL(r.Context):
		p.attrs["context"] = r.Context
		if file == "-" {
			return p.dockerfileFromStdin()
		}
		if file != "" {
			p.attrs["filename"] = file
		}
		return nil
	}
	if err := p.mount("context", r.Context); err != nil {
		return err
	}
	switch {
	case file == "-":
		return p.dockerfileFromStdin()
	case isURL(file):
		return errs.New(errs.Unsupported, "-f %s: a Dockerfile cannot be fetched by itself; download it, or give the URL as the context", file)
	case file == "":
		file = filepath.Join(r.Context, "Dockerfile")
		if _, err := os.Lstat(file); os.IsNotExist(err) {
			if lower := filepath.Join(r.Context, "dockerfile"); exists(lower) {
				file = lower
			}
		}
	}
	if st, err := os.Stat(file); err != nil {
		return errs.New(errs.NotFound, "the Dockerfile cannot be read: %w; name it with -f", err)
	} else if st.IsDir() {
		return errs.New(errs.Invalid, "-f %s is a directory; name the Dockerfile in it", file)
	}
	p.attrs["filename"] = filepath.Base(file)
	return p.mount("dockerfile", filepath.Dir(file))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// mount offers a directory to the engine under a name.
func (p *plan) mount(name, dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return errs.New(errs.NotFound, "unable to prepare context: %w", err)
	}
	if !st.IsDir() {
		return errs.New(errs.Invalid, "unable to prepare context: %s is not a directory; give a directory, a URL or - for standard input", dir)
	}
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	p.opt.LocalMounts[name] = fs
	return nil
}

// fromStdin takes an archive, or a Dockerfile without context.
func (p *plan) fromStdin(file string) error {
	if st, err := os.Stdin.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
		return errs.New(errs.Invalid, "the context is to come from standard input, which is a terminal: redirect an archive or a Dockerfile to it")
	}
	head, err := p.stdin.Peek(512)
	if err != nil && len(head) == 0 {
		return errs.New(errs.Invalid, "the context from standard input is empty; want an archive (tar) or a Dockerfile")
	}
	if !isArchive(head) {
		if file != "" {
			return errs.New(errs.Invalid, "-f %s has no meaning: standard input is a Dockerfile, not an archive", file)
		}
		return p.dockerfileFromStdin()
	}
	up := uploadprovider.New()
	p.attrs["context"] = up.Add(io.NopCloser(p.stdin))
	if file != "" {
		p.attrs["filename"] = file
	}
	p.opt.Session = append(p.opt.Session, up)
	return nil
}

// isArchive knows tar, and what packs it.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) > 262 && string(head[257:262]) == "ustar"
}

// dockerfileFromStdin offers the Dockerfile in a directory of its own; a context that there is none of is that directory.
func (p *plan) dockerfileFromStdin() error {
	data, err := io.ReadAll(io.LimitReader(p.stdin, 16<<20))
	if err != nil {
		return errs.Wrap(err, "read the Dockerfile from standard input")
	}
	dir, err := os.MkdirTemp("", "shoal-build-")
	if err != nil {
		return err
	}
	p.undo = append(p.undo, func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), data, 0o600); err != nil {
		return err
	}
	p.attrs["filename"] = "Dockerfile"
	if p.attrs["context"] == "" && p.opt.LocalMounts["context"] == nil {
		empty, err := os.MkdirTemp("", "shoal-build-")
		if err != nil {
			return err
		}
		p.undo = append(p.undo, func() { os.RemoveAll(empty) })
		if err := p.mount("context", empty); err != nil {
			return err
		}
	}
	if p.attrs["context"] != "" {
		p.attrs["dockerfilekey"] = "dockerfile"
	}
	return p.mount("dockerfile", dir)
}

// source says what of the context is built.
func (p *plan) source(r *buildflags.Request) error {
	s := &r.Source
	if s.Target != "" {
		p.attrs["target"] = s.Target
	}
	if len(s.Platforms) > 0 {
		p.attrs["platform"] = strings.Join(s.Platforms, ",")
	}
	for _, arg := range s.Args {
		name, value, set := strings.Cut(arg, "=")
		if !set {
			if value, set = os.LookupEnv(name); !set {
				continue // as Docker does: the Dockerfile's default counts
			}
		}
		p.attrs["build-arg:"+name] = value
	}
	for _, l := range s.Labels {
		name, value, _ := strings.Cut(l, "=")
		p.attrs["label:"+name] = value
	}
	for _, c := range s.Contexts {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" || value == "" {
			return errs.New(errs.Invalid, "--build-context %q: want NAME=DIRECTORY, a URL, docker-image://NAME or oci-layout://PATH", c)
		}
		if err := p.named(name, value); err != nil {
			return err
		}
	}
	return nil
}

// named offers a further context.
func (p *plan) named(name, value string) error {
	key := "context:" + name
	if path, ok := strings.CutPrefix(value, "oci-layout://"); ok {
		dir, ref := path, ""
		if i := strings.LastIndexByte(path, '@'); i > 0 {
			dir, ref = path[:i], path[i:]
		} else if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
			dir, ref = path[:i], path[i:]
		}
		st, err := contentlocal.NewStore(dir)
		if err != nil {
			return errs.Wrap(err, "--build-context %s", name)
		}
		if ref == "" || ref[0] != '@' {
			digest, err := layoutDigest(dir, strings.TrimPrefix(ref, ":"))
			if err != nil {
				return errs.Wrap(err, "--build-context %s", name)
			}
			ref = "@" + digest
		}
		store := "layout-" + name
		p.opt.OCIStores[store] = st
		p.attrs[key] = "oci-layout://" + store + ref
		return nil
	}
	if isURL(value) || strings.HasPrefix(value, "docker-image://") || strings.HasPrefix(value, "target:") {
		p.attrs[key] = value
		return nil
	}
	if err := p.mount("named-"+name, value); err != nil {
		return errs.Wrap(err, "--build-context %s", name)
	}
	p.attrs[key] = "local:named-" + name
	return nil
}

// options say how it is built.
func (p *plan) options(r *buildflags.Request) error {
	o := &r.Options
	if o.NoCache {
		p.attrs["no-cache"] = ""
	}
	if len(o.NoCacheFilter) > 0 {
		if o.NoCache {
			return errs.New(errs.Invalid, "--no-cache and --no-cache-filter cannot be given together: the first is all stages")
		}
		p.attrs["no-cache"] = strings.Join(o.NoCacheFilter, ",")
	}
	if o.Pull {
		p.attrs["image-resolve-mode"] = "pull"
	}
	allow := append([]string(nil), o.Allow...)
	switch o.Network {
	case "", "default", "bridge":
	case "host":
		p.attrs["force-network-mode"] = "host"
		allow = append(allow, "network.host")
	case "none":
		p.attrs["force-network-mode"] = "none"
	default:
		return errs.New(errs.Unsupported, "network mode %q not supported by buildkit: steps of a build use default, none or host", o.Network)
	}
	p.opt.AllowedEntitlements = allow
	var hosts []string
	for _, h := range o.AddHosts {
		name, addr, ok := strings.Cut(h, "=")
		if !ok {
			name, addr, ok = strings.Cut(h, ":")
		}
		if !ok || name == "" || addr == "" {
			return errs.New(errs.Invalid, "--add-host %q: want host:ip", h)
		}
		hosts = append(hosts, name+"="+strings.Trim(addr, "[]"))
	}
	if len(hosts) > 0 {
		p.attrs["add-hosts"] = strings.Join(hosts, ",")
	}
	for _, a := range o.Attest {
		kind := ""
		for field := range strings.SplitSeq(a, ",") {
			if t, ok := strings.CutPrefix(field, "type="); ok {
				kind = t
			}
		}
		if kind == "" {
			return errs.New(errs.Invalid, "--attest %q: the type is missing; want type=provenance or type=sbom", a)
		}
		p.attrs["attest:"+kind] = a
	}
	for kind, v := range map[string]string{"provenance": r.Output.Provenance, "sbom": r.Output.SBOM} {
		switch v {
		case "", "false":
		case "true":
			p.attrs["attest:"+kind] = ""
		default:
			p.attrs["attest:"+kind] = v
		}
	}
	return p.caches(o)
}

func (p *plan) caches(o *buildflags.Options) (err error) {
	if p.opt.CacheImports, err = bkflags.ParseImportCache(withType(o.CacheFrom)); err != nil {
		return errs.New(errs.Invalid, "--cache-from: %w", err)
	}
	if p.opt.CacheExports, err = bkflags.ParseExportCache(withType(o.CacheTo)); err != nil {
		return errs.New(errs.Invalid, "--cache-to: %w", err)
	}
	return nil
}

// withType makes "user/app:cache" the registry cache that it stands for.
func withType(list []string) (out []string) {
	for _, s := range list {
		if !strings.Contains(s, "=") {
			s = "type=registry,ref=" + s
		}
		out = append(out, s)
	}
	return out
}

// limits hold for each step.
func (p *plan) limits(r *buildflags.Request) error {
	l := &r.Limits
	for key, text := range map[string]string{"shm-size": l.ShmSize, "memory": l.Memory, "memswap": l.MemorySwap} {
		if text == "" {
			continue
		}
		n, err := units.RAMInBytes(text)
		if text == "-1" && key == "memswap" {
			n, err = -1, nil
		}
		if err != nil {
			return errs.New(errs.Invalid, "%s %q is not a size: %w; want for example 512m", key, text, err)
		}
		p.attrs[key] = strconv.FormatInt(n, 10)
	}
	for key, n := range map[string]int64{"cpushares": l.CPUShares, "cpuperiod": l.CPUPeriod, "cpuquota": l.CPUQuota} {
		if n != 0 {
			p.attrs[key] = strconv.FormatInt(n, 10)
		}
	}
	for key, text := range map[string]string{"cgroup-parent": l.CgroupParent, "cpusetcpus": l.CpusetCPUs, "cpusetmems": l.CpusetMems} {
		if text != "" {
			p.attrs[key] = text
		}
	}
	if len(l.Ulimits) > 0 {
		p.attrs["ulimit"] = strings.Join(l.Ulimits, ",")
	}
	return nil
}

// attachables are the credentials, secrets and keys that the engine may ask this client for.
func (p *plan) attachables(r *buildflags.Request) error {
	dir := r.Server.ConfigDir
	if dir == "" {
		dir = dockerconfig.Dir()
	}
	cfg, err := dockerconfig.Load(dir)
	if err != nil {
		return err
	}
	add := func(a session.Attachable) { p.opt.Session = append(p.opt.Session, a) }
	add(authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: authprovider.LoadAuthConfig(cfg)}))
	if len(r.Options.Secrets) > 0 {
		a, err := bkflags.ParseSecret(r.Options.Secrets)
		if err != nil {
			return errs.New(errs.Invalid, "--secret: %w", err)
		}
		add(a)
	}
	if len(r.Options.SSH) > 0 {
		keys, err := bkflags.ParseSSH(r.Options.SSH)
		if err == nil {
			var a session.Attachable
			if a, err = sshprovider.NewSSHAgentProvider(keys); err == nil {
				add(a)
			}
		}
		if err != nil {
			return errs.New(errs.Invalid, "--ssh: %w", err)
		}
	}
	return nil
}

// outputs are where the result goes: without any, to the engine's store.
func (p *plan) outputs(r *buildflags.Request) error {
	out := &r.Output
	var list []string
	for _, o := range out.Outputs {
		full, err := outputOf(o)
		if err != nil {
			return err
		}
		list = append(list, full)
	}
	for _, tag := range r.Source.Tags { // BuildKit's client notices the engine's refusal five seconds later
		if _, err := reference.ParseNormalizedNamed(tag); err != nil {
			return errs.New(errs.Invalid, "-t %s: %w; want NAME[:TAG], in lower case", tag, err)
		}
	}
	names := strings.Join(r.Source.Tags, ",")
	if out.Push && names == "" {
		return errs.New(errs.Invalid, "--push: nothing says where to; give the image a name with -t")
	}
	if out.Push || out.Load || len(list) == 0 {
		list = append(list, "type=image")
	}
	entries, err := bkflags.ParseOutput(list)
	if err != nil {
		return errs.New(errs.Invalid, "--output: %w", err)
	}
	for i := range entries {
		e := &entries[i]
		if e.Type == "registry" {
			e.Type, e.Attrs["push"] = bkclient.ExporterImage, "true"
		}
		switch e.Type {
		case bkclient.ExporterImage:
			if out.Push {
				e.Attrs["push"] = "true"
			}
		case bkclient.ExporterOCI, bkclient.ExporterDocker:
		default:
			if r.Options.Squash {
				return errs.New(errs.Invalid, "--squash makes one layer of an image, and output type=%s has no layers; leave one of them out", e.Type)
			}
			continue
		}
		if r.Options.Squash {
			e.Attrs["squash"] = "true"
		}
		if e.Attrs["name"] == "" && names != "" {
			e.Attrs["name"] = names
		}
		for _, n := range r.Source.Notes {
			k, v, _ := strings.Cut(n, "=")
			e.Attrs["annotation."+k] = v
		}
	}
	p.opt.Exports = entries
	return nil
}

// outputOf reads Docker's short forms: a directory, or - for an archive on standard output.
func outputOf(o string) (string, error) {
	fields, err := csv.NewReader(strings.NewReader(o)).Read()
	if err != nil || o == "" {
		return "", errs.New(errs.Invalid, "--output %q: want type=TYPE[,KEY=VALUE]... or a directory", o)
	}
	if len(fields) == 1 && !strings.HasPrefix(o, "type=") {
		if o == "-" {
			return "type=tar,dest=-", nil
		}
		return "type=local,dest=" + o, nil
	}
	kind, dest := "", false
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		if k == "type" {
			kind = v
		}
		dest = dest || k == "dest"
	}
	if kind == bkclient.ExporterDocker && !dest {
		return strings.Replace(o, "type=docker", "type=image", 1), nil // into the engine's store
	}
	return o, nil
}
