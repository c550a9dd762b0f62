package build

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/leaseutil"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/undo"
)

// optSquash is the exporters' attribute for Docker's --squash: all layers that the build adds become one on top of the base's.
const optSquash = "squash"

// squasher makes such images.
type squasher struct {
	cache   cache.Manager
	content content.Store
	leases  leases.Manager
}

// squash gives a result like src, with one layer on top of each base. What it made for that goes with u.
func (q squasher) squash(ctx context.Context, src *exporter.Source, sessionID string, u *undo.Stack) (*exporter.Source, error) {
	ctx, done, err := leaseutil.WithLease(ctx, q.leases, leaseutil.MakeTemporary)
	if err != nil {
		return nil, err
	}
	u.Add(func() { done(context.WithoutCancel(ctx)) })
	out := exporter.Source{Ref: src.Ref, Refs: maps.Clone(src.Refs), Metadata: maps.Clone(src.Metadata), Attestations: src.Attestations}
	if src.Ref != nil {
		out.Ref, err = q.one(ctx, src.Ref, out.Metadata, "", sessionID, u)
		if err != nil {
			return nil, err
		}
	}
	for platform, ref := range src.Refs {
		key := "/" + platform
		if _, ok := src.Metadata[exptypes.ExporterImageConfigKey+key]; !ok {
			key = ""
		}
		if out.Refs[platform], err = q.one(ctx, ref, out.Metadata, key, sessionID, u); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// one squashes the image of one platform, whose keys in meta end in suffix.
func (q squasher) one(ctx context.Context, ref cache.ImmutableRef, meta map[string][]byte, suffix, sessionID string, u *undo.Stack) (cache.ImmutableRef, error) {
	if ref == nil {
		return nil, nil
	}
	var base ocispec.Image
	if data := meta[exptypes.ExporterImageBaseConfigKey+suffix]; len(data) > 0 {
		if err := json.Unmarshal(data, &base); err != nil {
			return nil, errs.Wrap(err, "squash: the base image's configuration")
		}
	}
	chain := ref.LayerChain()
	u.Add(func() { chain.Release(context.WithoutCancel(ctx)) })
	keep := len(base.RootFS.DiffIDs)
	if len(chain) <= keep+1 {
		return ref, nil // nothing, or one layer only
	}
	config, err := squashedHistory(meta[exptypes.ExporterImageConfigKey+suffix], len(base.History))
	if err != nil {
		return nil, err
	}
	var below cache.ImmutableRef
	if keep > 0 {
		below = chain[keep-1]
	}
	desc, err := q.layer(ctx, below, ref, session.NewGroup(sessionID))
	if err != nil {
		return nil, errs.Wrap(err, "squash: pack the layer")
	}
	squashed, err := q.cache.GetByBlob(ctx, desc, below, cache.WithDescription("squashed layers"))
	if err != nil {
		return nil, errs.Wrap(err, "squash: record the layer")
	}
	u.Add(func() { squashed.Release(context.WithoutCancel(ctx)) })
	meta[exptypes.ExporterImageConfigKey+suffix] = config
	return squashed, nil
}

// layer packs what upper has changed of lower.
func (q squasher) layer(ctx context.Context, lower, upper cache.ImmutableRef, s session.Group) (ocispec.Descriptor, error) {
	var low, up []mount.Mount
	for _, side := range []struct {
		ref cache.ImmutableRef
		to  *[]mount.Mount
	}{{lower, &low}, {upper, &up}} {
		if side.ref == nil {
			continue
		}
		mountable, err := side.ref.Mount(ctx, true, s)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		list, release, err := mountable.Mount()
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if release != nil {
			defer release()
		}
		*side.to = list
	}
	desc, err := newDiffer(q.content).Compare(ctx, low, up, diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
	if err != nil {
		return desc, err
	}
	info, err := q.content.Info(ctx, desc.Digest)
	if err != nil {
		return desc, err
	}
	desc.Annotations = map[string]string{labels.LabelUncompressed: info.Labels[labels.LabelUncompressed]}
	return desc, nil
}

// squashedHistory tells the same history, with all of what the build did in one last layer, in Docker's words.
func squashedHistory(config []byte, base int) ([]byte, error) {
	var all map[string]json.RawMessage
	var history []ocispec.History
	if err := json.Unmarshal(config, &all); err != nil {
		return nil, errs.Wrap(err, "squash: the image's configuration")
	}
	if h := all["history"]; h != nil {
		if err := json.Unmarshal(h, &history); err != nil {
			return nil, errs.Wrap(err, "squash: the image's history")
		}
	}
	var created *time.Time
	for i := range history {
		if i >= base {
			history[i].EmptyLayer = true
			created = history[i].Created
		}
	}
	history = append(history, ocispec.History{Created: created, Comment: "squashed layers of the build"})
	data, err := json.Marshal(history)
	if err != nil {
		return nil, err
	}
	all["history"] = data
	return json.Marshal(all)
}

// squashExporter gives images the one layer before e exports them.
type squashExporter struct {
	exporter.Exporter
	q squasher
}

func (e squashExporter) Resolve(ctx context.Context, id int, opt map[string]string) (exporter.ExporterInstance, error) {
	text, asked := opt[optSquash]
	yes := true
	if asked && text != "" {
		var err error
		if yes, err = strconv.ParseBool(text); err != nil {
			return nil, errs.New(errs.Invalid, "squash=%q of an output: want true or false", text)
		}
	}
	opt = maps.Clone(opt)
	delete(opt, optSquash)
	i, err := e.Exporter.Resolve(ctx, id, opt)
	if err != nil || !asked || !yes {
		return i, err
	}
	switch i.Type() {
	case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
		return squashExport{i, e.q}, nil
	}
	return nil, errs.New(errs.Invalid, "squash makes one layer of an image, and output type=%s has no layers; leave it out", i.Type())
}

type squashExport struct {
	exporter.ExporterInstance
	q squasher
}

func (e squashExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	var u undo.Stack
	defer u.Run()
	squashed, err := e.q.squash(ctx, src, info.SessionID, &u)
	if err != nil {
		return nil, nil, nil, err
	}
	return e.ExporterInstance.Export(ctx, squashed, info)
}
