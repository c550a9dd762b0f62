package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
)

// Media types of indexes. Docker's is what `docker manifest` makes; an index of OCI images is an OCI index.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// draft is an index under way, kept with the configuration until it is pushed.
type draft struct {
	Entries []draftEntry `json:"entries"`
}

type draftEntry struct {
	Ref        string             `json:"ref"` // with digest
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Raw        []byte             `json:"raw"`
}

func (a *App) draftPath(ref string) string {
	return filepath.Join(a.configDir(), "manifests", strings.NewReplacer("/", "_", ":", "-").Replace(ref)+".json")
}

func (a *App) readDraft(ref string) (draft, error) {
	var d draft
	err := atomicfile.ReadJSON(a.draftPath(ref), &d)
	if errors.Is(err, fs.ErrNotExist) {
		return d, errs.New(errs.NotFound, "No such manifest: %s; make it with `shoal manifest create`", ref)
	}
	return d, err
}

func (a *App) writeDraft(ref string, d draft) error {
	if err := os.MkdirAll(filepath.Dir(a.draftPath(ref)), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteJSON(a.draftPath(ref), d, 0o600, atomicfile.Volatile)
}

// fullName is the name with domain and tag, or with digest.
func fullName(s string) (reference.Named, error) {
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, badImage(s, err)
	}
	return reference.TagNameOnly(n), nil
}

// manifest asks the registry, through the engine, what a name means.
func (a *App) manifest(ctx context.Context, api *client.Client, name string, insecure bool) (types.Manifest, error) {
	var m types.Manifest
	in, err := a.manifestRequest(name, insecure)
	if err != nil {
		return m, err
	}
	return m, api.Call(ctx, "POST", "/shoal/manifests/inspect", in, &m)
}

func (a *App) manifestRequest(name string, insecure bool) (types.ManifestRequest, error) {
	in := types.ManifestRequest{Ref: name, Insecure: insecure}
	encoded, err := a.authFor(name)
	if err != nil {
		return in, err
	}
	in.Auth, err = authconfig.Decode(encoded)
	return in, err
}

func insecureFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("insecure", false, "Allow communication with an insecure registry")
}

func manifestInspectCommand(a *App) *cobra.Command {
	var insecure *bool
	var verbose bool
	cmd := a.command("inspect [OPTIONS] [MANIFEST_LIST] MANIFEST", count(1, 2), func(ctx context.Context, api *client.Client, args []string) error {
		if len(args) == 2 {
			list, err := fullName(args[0])
			if err != nil {
				return err
			}
			one, err := fullName(args[1])
			if err != nil {
				return err
			}
			d, err := a.readDraft(list.String())
			if err != nil {
				return err
			}
			i := d.find(one)
			if i < 0 {
				return errs.New(errs.NotFound, "%s is not in the manifest list %s", args[1], args[0])
			}
			return a.showManifest(types.Manifest{Descriptor: d.Entries[i].Descriptor, Raw: d.Entries[i].Raw}, d.Entries[i].Ref, verbose)
		}
		name, err := fullName(args[0])
		if err != nil {
			return err
		}
		if d, err := a.readDraft(name.String()); err == nil {
			_, raw, err := d.index()
			if err != nil {
				return err
			}
			return a.showManifest(types.Manifest{Raw: raw}, name.String(), false)
		}
		m, err := a.manifest(ctx, api, name.String(), *insecure)
		if err != nil {
			return err
		}
		var index ocispec.Index
		if !verbose || json.Unmarshal(m.Raw, &index) != nil || len(index.Manifests) == 0 {
			return a.showManifest(m, name.String(), verbose)
		}
		var all []verboseManifest
		for _, e := range index.Manifests {
			at := reference.TrimNamed(name).String() + "@" + e.Digest.String()
			one, err := a.manifest(ctx, api, at, *insecure)
			if err != nil {
				return err
			}
			one.Descriptor = e
			all = append(all, newVerbose(one, at))
		}
		return a.json(all)
	})
	insecure = insecureFlag(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Output additional info including layers and platform")
	return cmd
}

// verboseManifest is an element of what `manifest inspect --verbose` shows.
type verboseManifest struct {
	Ref        string             `json:"Ref"`
	Descriptor ocispec.Descriptor `json:"Descriptor"`
	Raw        json.RawMessage    `json:"Raw"`
	Docker     json.RawMessage    `json:"SchemaV2Manifest,omitempty"`
	OCI        json.RawMessage    `json:"OCIManifest,omitempty"`
}

func newVerbose(m types.Manifest, ref string) verboseManifest {
	encoded, _ := json.Marshal(m.Raw) // bytes always can be
	v := verboseManifest{Ref: ref, Descriptor: m.Descriptor, Raw: encoded}
	if m.Descriptor.MediaType == dockerManifest {
		v.Docker = m.Raw
	} else {
		v.OCI = m.Raw
	}
	return v
}

func (a *App) showManifest(m types.Manifest, ref string, verbose bool) error {
	if verbose {
		return a.json(newVerbose(m, ref))
	}
	var b bytes.Buffer
	if err := json.Indent(&b, m.Raw, "", "   "); err != nil {
		return errs.New(errs.Invalid, "%s is no JSON document: %w", ref, err)
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(a.Out)
	return err
}

func (a *App) json(v any) error {
	e := json.NewEncoder(a.Out)
	e.SetIndent("", "\t")
	return e.Encode(v)
}

func manifestCreateCommand(a *App) *cobra.Command {
	var insecure *bool
	var amend bool
	cmd := a.command("create [OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]", count(2, -1), func(ctx context.Context, api *client.Client, args []string) error {
		list, err := fullName(args[0])
		if err != nil {
			return err
		}
		d, err := a.readDraft(list.String())
		switch {
		case err == nil && !amend:
			return errs.New(errs.Conflict, "refusing to amend an existing manifest list with no --amend flag: %s", list)
		case err != nil && !errs.Is(err, errs.NotFound):
			return err
		}
		for _, arg := range args[1:] {
			name, err := fullName(arg)
			if err != nil {
				return err
			}
			if reference.Domain(name) != reference.Domain(list) {
				return errs.New(errs.Invalid, "cannot use source images from a different registry than the target image: %s, not %s", reference.Domain(name), reference.Domain(list))
			}
			m, err := a.manifest(ctx, api, name.String(), *insecure)
			if err != nil {
				return err
			}
			if m.Descriptor.Platform == nil {
				return errs.New(errs.Invalid, "%s is %s, not the manifest of an image; name one platform's manifest by digest", arg, m.Descriptor.MediaType)
			}
			e := draftEntry{reference.TrimNamed(name).String() + "@" + m.Descriptor.Digest.String(), m.Descriptor, m.Raw}
			d.Entries = append(slices.DeleteFunc(d.Entries, func(o draftEntry) bool { return o.Ref == e.Ref }), e)
		}
		if err := a.writeDraft(list.String(), d); err != nil {
			return err
		}
		a.say("Created manifest list " + list.String())
		return nil
	})
	insecure = insecureFlag(cmd)
	cmd.Flags().BoolVarP(&amend, "amend", "a", false, "Amend an existing manifest list")
	return cmd
}

// find gives the entry that a name means: by digest, or by the manifest that its tag named when it was added.
func (d draft) find(name reference.Named) int {
	dg, byDigest := name.(reference.Digested)
	var found []int
	for i, e := range d.Entries {
		repo, digest, _ := strings.Cut(e.Ref, "@")
		if repo == reference.TrimNamed(name).String() && (!byDigest || digest == dg.Digest().String()) {
			found = append(found, i)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return -1
}

func manifestAnnotateCommand(a *App) *cobra.Command {
	var p ocispec.Platform
	cmd := &cobra.Command{Use: "annotate [OPTIONS] MANIFEST_LIST MANIFEST", Args: count(2, 2)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		list, err := fullName(args[0])
		if err != nil {
			return err
		}
		d, err := a.readDraft(list.String())
		if err != nil {
			return err
		}
		one, err := fullName(args[1])
		if err != nil {
			return err
		}
		i := d.find(one)
		if _, byDigest := one.(reference.Digested); i < 0 && !byDigest { // several of that repository: ask what the tag means
			api, aerr := a.API()
			if aerr != nil {
				return aerr
			}
			m, merr := a.manifest(cmd.Context(), api, one.String(), false)
			if merr != nil {
				return merr
			}
			i = slices.IndexFunc(d.Entries, func(e draftEntry) bool { return e.Descriptor.Digest == m.Descriptor.Digest })
		}
		if i < 0 {
			return errs.New(errs.NotFound, "manifest for image %s does not exist in %s; name it by digest, as `shoal manifest inspect %s` shows", args[1], args[0], args[0])
		}
		to := d.Entries[i].Descriptor.Platform
		for flag, set := range map[string]func(){"arch": func() { to.Architecture = p.Architecture }, "os": func() { to.OS = p.OS }, "variant": func() { to.Variant = p.Variant },
			"os-version": func() { to.OSVersion = p.OSVersion }, "os-features": func() { to.OSFeatures = p.OSFeatures }} {
			if cmd.Flags().Changed(flag) {
				set()
			}
		}
		return a.writeDraft(list.String(), d)
	}
	fs := cmd.Flags()
	fs.StringVar(&p.Architecture, "arch", "", "Set architecture")
	fs.StringVar(&p.OS, "os", "", "Set operating system")
	fs.StringSliceVar(&p.OSFeatures, "os-features", nil, "Set operating system feature")
	fs.StringVar(&p.OSVersion, "os-version", "", "Set operating system version")
	fs.StringVar(&p.Variant, "variant", "", "Set architecture variant")
	return cmd
}

// index is the draft as a document.
func (d draft) index() (mediaType string, raw []byte, err error) {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, e := range d.Entries {
		index.Manifests = append(index.Manifests, e.Descriptor)
	}
	if !slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.MediaType != dockerManifest }) {
		index.MediaType = dockerList
	}
	raw, err = json.MarshalIndent(index, "", "   ")
	return index.MediaType, raw, err
}

func manifestPushCommand(a *App) *cobra.Command {
	var insecure *bool
	var purge bool
	cmd := a.command("push [OPTIONS] MANIFEST_LIST", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		list, err := fullName(args[0])
		if err != nil {
			return err
		}
		d, err := a.readDraft(list.String())
		if err != nil {
			return err
		}
		in := types.IndexPush{}
		if in.ManifestRequest, err = a.manifestRequest(list.String(), *insecure); err != nil {
			return err
		}
		if in.MediaType, in.Index, err = d.index(); err != nil {
			return err
		}
		for _, e := range d.Entries {
			in.Sources = append(in.Sources, e.Ref)
		}
		var pushed ocispec.Descriptor
		if err := api.Call(ctx, "POST", "/shoal/manifests/push", in, &pushed); err != nil {
			return err
		}
		a.say(pushed.Digest.String())
		if purge {
			return os.Remove(a.draftPath(list.String()))
		}
		return nil
	})
	insecure = insecureFlag(cmd)
	cmd.Flags().BoolVarP(&purge, "purge", "p", false, "Remove the local manifest list after push")
	return cmd
}

func manifestRmCommand(a *App) *cobra.Command {
	return &cobra.Command{Use: "rm MANIFEST_LIST [MANIFEST_LIST...]", Args: count(1, -1), RunE: func(_ *cobra.Command, args []string) error {
		return a.parallel(args, func(name string) error {
			list, err := fullName(name)
			if err != nil {
				return err
			}
			if _, err := a.readDraft(list.String()); err != nil {
				return err
			}
			return os.Remove(a.draftPath(list.String()))
		})
	}}
}
