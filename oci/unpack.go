package oci

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/moby/sys/user"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/runtime/spec"
)

func imageUnpack(fs *pflag.FlagSet) func(context.Context, []string, io.Writer) (int, error) {
	ref := fs.String("ref", "", "Name of the image in the layout, when it holds several")
	platform := fs.String("platform", "", "Platform, for example linux/arm64, instead of this machine's")
	format := formatFlag(fs)
	return func(ctx context.Context, args []string, out io.Writer) (int, error) {
		if err := checkFormat(*format); err != nil {
			return exitUsage, err
		}
		match := platforms.Default()
		if *platform != "" {
			p, err := platforms.Parse(*platform)
			if err != nil {
				return exitUsage, errs.New(errs.Invalid, "--platform %q: %w", *platform, err)
			}
			match = platforms.Only(p)
		}
		l, err := openLayout(ctx, args[0])
		if err != nil {
			return cannotOpen(err), err
		}
		defer l.close()
		desc, err := l.choose(*ref, match)
		if err != nil {
			return exitUnsound, err
		}
		done, err := unpackImage(ctx, l, desc, args[1], *platform)
		if err != nil {
			return exitUnsound, err
		}
		if *format == "json" {
			return exitSound, writeJSON(out, done)
		}
		_, err = fmt.Fprintf(out, "%s: unpacked %s, %d layers; run it with `shoal-runtime run -b %s ID`\n", args[1], desc.Digest, done.Layers, args[1])
		return exitSound, err
	}
}

// unpacked is what was done.
type unpacked struct {
	Bundle   string        `json:"bundle"`
	Manifest digest.Digest `json:"manifest"`
	Layers   int           `json:"layers"`
}

// choose finds the manifest by name and platform.
func (l *layout) choose(ref string, match platforms.MatchComparer) (ocispec.Descriptor, error) {
	var fit []ocispec.Descriptor
	var names []string
	for _, m := range l.index.Manifests {
		name := m.Annotations[ocispec.AnnotationRefName]
		full := m.Annotations[images.AnnotationImageName]
		if name != "" {
			names = append(names, name)
		}
		if ref == "" || ref == name || ref == full || ref == m.Digest.String() {
			fit = append(fit, m)
		}
	}
	if len(fit) == 0 {
		return ocispec.Descriptor{}, errs.New(errs.NotFound, "the layout has no image %q; it has: %s", ref, strings.Join(names, ", "))
	}
	found, offered, err := l.forPlatform(fit, match, 0)
	switch {
	case err != nil:
		return ocispec.Descriptor{}, err
	case len(found) == 0:
		return ocispec.Descriptor{}, errs.New(errs.NotFound, "no image for the platform; there are: %s", strings.Join(offered, ", "))
	case len(found) > 1 && ref == "" && len(l.index.Manifests) > 1:
		return ocispec.Descriptor{}, errs.New(errs.Invalid, "the layout has %d images for this platform; choose one with --ref: %s", len(found), strings.Join(names, ", "))
	}
	return found[0], nil
}

func (l *layout) forPlatform(list []ocispec.Descriptor, match platforms.MatchComparer, depth int) (found []ocispec.Descriptor, offered []string, err error) {
	if depth > maxDepth {
		return nil, nil, errs.New(errs.Invalid, "more than %d indexes within each other", maxDepth)
	}
	for _, m := range list {
		switch {
		case images.IsIndexType(m.MediaType):
			var index ocispec.Index
			if err := l.document(m, &index); err != nil {
				return nil, nil, errs.Wrap(err, "index %s", m.Digest)
			}
			f, o, err := l.forPlatform(index.Manifests, match, depth+1)
			if err != nil {
				return nil, nil, err
			}
			found, offered = append(found, f...), append(offered, o...)
		case !images.IsManifestType(m.MediaType) || m.Platform != nil && m.Platform.OS == "unknown":
		case m.Platform == nil || match.Match(*m.Platform):
			found = append(found, m)
		default:
			offered = append(offered, platforms.Format(*m.Platform))
		}
	}
	slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int {
		if a.Platform != nil && b.Platform != nil && match.Less(*a.Platform, *b.Platform) {
			return -1
		}
		return 0
	})
	return found, offered, nil
}

// unpackImage makes the bundle, all of it or nothing.
func unpackImage(ctx context.Context, l *layout, desc ocispec.Descriptor, bundle, platform string) (done unpacked, err error) {
	var m ocispec.Manifest
	var cfg ocispec.Image
	if err := l.document(desc, &m); err != nil {
		return done, errs.Wrap(err, "manifest %s", desc.Digest)
	}
	if err := l.document(m.Config, &cfg); err != nil {
		return done, errs.Wrap(err, "config %s", m.Config.Digest)
	}
	if len(cfg.RootFS.DiffIDs) != len(m.Layers) {
		return done, errs.New(errs.Invalid, "manifest %s has %d layers, its config %d", desc.Digest, len(m.Layers), len(cfg.RootFS.DiffIDs))
	}
	if p, err := platforms.Parse(platform); err == nil && platform != "" && !platforms.Only(p).Match(cfg.Platform) {
		return done, errs.New(errs.NotFound, "the image is for %s, not for %s", platforms.Format(cfg.Platform), platform)
	}
	var u undo.Stack
	defer u.Run()
	if err := os.Mkdir(bundle, 0o711); err == nil {
		u.Add(func() { os.Remove(bundle) })
	} else if !os.IsExist(err) {
		return done, err
	}
	root := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		return done, errs.New(errs.Conflict, "%w; a bundle is unpacked into a new or empty directory", err)
	}
	u.Add(func() { os.RemoveAll(root) })
	for i, d := range m.Layers {
		if err := l.unpackLayer(ctx, root, d, cfg.RootFS.DiffIDs[i]); err != nil {
			return done, errs.Wrap(err, "layer %d of %d (%s)", i+1, len(m.Layers), d.Digest)
		}
	}
	s, err := configFor(root, cfg)
	if err != nil {
		return done, err
	}
	if err := atomicfile.WriteJSON(filepath.Join(bundle, configFile), s, 0o644, atomicfile.Volatile); err != nil {
		return done, err
	}
	u.Release()
	return unpacked{bundle, desc.Digest, len(m.Layers)}, nil
}

func (l *layout) unpackLayer(ctx context.Context, root string, d ocispec.Descriptor, diffID digest.Digest) error {
	if err := l.verify(d); err != nil {
		return err
	}
	if err := diffID.Validate(); err != nil {
		return errs.New(errs.Invalid, "diff ID %q: %w", diffID, err)
	}
	return l.layerOf(d, func(r io.Reader) error {
		sum := diffID.Algorithm().Hash()
		tee := io.TeeReader(r, sum)
		if err := layer.Apply(ctx, root, tee, layer.Options{}); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, tee); err != nil {
			return err
		}
		if got := digest.NewDigest(diffID.Algorithm(), sum); got != diffID {
			return errs.New(errs.Damaged, "unpacked it has digest %s, but the config says %s", got, diffID)
		}
		return nil
	})
}

// configFor converts an image's configuration (image-spec, conversion.md).
func configFor(root string, cfg ocispec.Image) (*specs.Spec, error) {
	s := spec.Example()
	s.Root.Readonly, s.Process.Terminal = false, false
	c := cfg.Config
	if args := slices.Concat(c.Entrypoint, c.Cmd); len(args) > 0 {
		s.Process.Args = args
	}
	if len(c.Env) > 0 {
		s.Process.Env = c.Env
		if !slices.ContainsFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
			s.Process.Env = append(slices.Clone(c.Env), spec.Example().Process.Env[0])
		}
	}
	if c.WorkingDir != "" {
		s.Process.Cwd = filepath.Join("/", c.WorkingDir)
	}
	if err := userFor(root, c.User, s.Process); err != nil {
		return nil, err
	}
	for dir := range c.Volumes {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: filepath.Join("/", dir), Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}})
	}
	slices.SortFunc(s.Mounts[len(s.Mounts)-len(c.Volumes):], func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	s.Annotations = map[string]string{"org.opencontainers.image.os": cfg.OS, "org.opencontainers.image.architecture": cfg.Architecture}
	if cfg.Author != "" {
		s.Annotations["org.opencontainers.image.author"] = cfg.Author
	}
	if cfg.Created != nil {
		s.Annotations["org.opencontainers.image.created"] = cfg.Created.Format("2006-01-02T15:04:05.999999999Z07:00")
	}
	if c.StopSignal != "" {
		s.Annotations["org.opencontainers.image.stopSignal"] = c.StopSignal
	}
	var ports []string
	for p := range c.ExposedPorts {
		ports = append(ports, p)
	}
	if slices.Sort(ports); len(ports) > 0 {
		s.Annotations["org.opencontainers.image.exposedPorts"] = strings.Join(ports, ",")
	}
	for k, v := range c.Labels {
		s.Annotations[k] = v
	}
	return s, errs.Wrap(spec.Validate(s), "the image's configuration makes no runnable one")
}

// userFor looks names up in the image's own files.
func userFor(root, name string, p *specs.Process) error {
	if name == "" {
		return nil
	}
	open := func(path string) io.Reader {
		at, err := openIn(root, path, unix.O_PATH)
		if err != nil {
			return strings.NewReader("")
		}
		defer at.Close()
		f, err := openat.Reopen(int(at.Fd()), path) // an image may have a device there, whose opening does things
		if err != nil {
			return strings.NewReader("")
		}
		defer f.Close()
		data, _ := io.ReadAll(io.LimitReader(f, 16<<20))
		return strings.NewReader(string(data))
	}
	u, err := user.GetExecUser(name, &user.ExecUser{}, open("/etc/passwd"), open("/etc/group"))
	if err != nil {
		return errs.New(errs.Invalid, "user %q of the image: %w", name, err)
	}
	p.User.UID, p.User.GID = uint32(u.Uid), uint32(u.Gid)
	for _, g := range u.Sgids {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	return nil
}
