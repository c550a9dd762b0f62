package build

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/cdidevices"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/disk"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/moby/buildkit/cmd/buildkitd/config"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
)

// ourWorker is BuildKit's worker with our image exporter.
type ourWorker struct {
	*base.Worker
	store *store.Store
	parts store.Parts

	devices func() *cdidevices.Manager
}

// CDIManager is asked whenever steps are looked at. Without one BuildKit breaks down at a step that wants a device.
func (w *ourWorker) CDIManager() *cdidevices.Manager { return w.devices() }

// Exporter knows "moby" as a name of "image": that is what clients of Docker's own daemon ask for.
func (w *ourWorker) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	if name == "moby" {
		name = client.ExporterImage
	}
	e, err := w.Worker.Exporter(name, sm)
	if err != nil {
		return nil, err
	}
	if name == client.ExporterImage {
		e = imageExporter{e, w}
	}
	return squashExporter{e, squasher{w.CacheManager(), w.ContentStore(), w.LeaseManager()}}, nil
}

// ResolveOp refuses to run programs of a platform that the kernel cannot run, and says what is missing. Only running them is
// refused: steps that copy, and those that are cached, work for every platform.
func (w *ourWorker) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	op, err := w.Worker.ResolveOp(v, s, sm, proxy)
	if err != nil {
		return nil, err
	}
	sys, _ := v.Sys().(*pb.Op)
	if _, runs := sys.GetOp().(*pb.Op_Exec); !runs || sys.GetPlatform() == nil {
		return op, nil
	}
	p := platforms.Normalize(ocispec.Platform{OS: sys.Platform.OS, Architecture: sys.Platform.Architecture, Variant: sys.Platform.Variant})
	if runsHere(p, w.Platforms(false)) || runsHere(p, w.Platforms(true)) {
		return op, nil // as it is: the provenance asks it what it used
	}
	return refusedOp{op, p}, nil
}

// refusedOp can be found in the cache, and not be run.
type refusedOp struct {
	solver.Op
	platform ocispec.Platform
}

func (o refusedOp) Exec(context.Context, solver.JobContext, []solver.Result) ([]solver.Result, error) {
	return nil, noEmulator(o.platform)
}

func runsHere(p ocispec.Platform, list []ocispec.Platform) bool {
	return slices.ContainsFunc(list, func(own ocispec.Platform) bool { return platforms.Only(own).Match(p) })
}

// qemuNames are what QEMU calls the architectures that Go calls otherwise.
var qemuNames = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "ppc64le": "ppc64le", "loong64": "loongarch64", "mips64le": "mips64el", "mipsle": "mipsel"}

func noEmulator(p ocispec.Platform) error {
	name := qemuNames[p.Architecture]
	if name == "" {
		name = p.Architecture
	}
	return errs.New(errs.Unsupported, "this machine (%s) cannot run programs of %s: the kernel has no handler qemu-%s in /proc/sys/fs/binfmt_misc; install QEMU's user emulation with a fixed binary "+
		"(Debian: qemu-user-static and binfmt-support), run this step on the build platform (FROM --platform=$BUILDPLATFORM), or build on a machine of that kind",
		platforms.Format(platforms.DefaultSpec()), platforms.Format(p), name)
}

// imageExporter makes images that run without being unpacked: their layers are the snapshots that were built.
type imageExporter struct {
	exporter.Exporter
	w *ourWorker
}

func (e imageExporter) Resolve(ctx context.Context, id int, opt map[string]string) (exporter.ExporterInstance, error) {
	o := make(map[string]string, len(opt)+1)
	for k, v := range opt {
		o[k] = v
	}
	delete(o, string(exptypes.OptKeyUnpack)) // nothing is to be unpacked
	if _, ok := o[string(exptypes.OptKeyDanglingPrefix)]; !ok {
		o[string(exptypes.OptKeyDanglingPrefix)] = danglingPrefix
		o[string(exptypes.OptKeyDanglingEmptyOnly)] = "true"
	}
	names, err := fullNames(o[string(exptypes.OptKeyName)])
	if err != nil {
		return nil, err
	}
	o[string(exptypes.OptKeyName)] = names
	i, err := e.Exporter.Resolve(ctx, id, o)
	if err != nil {
		return nil, err
	}
	return imageExport{i, e.w, o[string(exptypes.OptKeyStore)]}, nil
}

type imageExport struct {
	exporter.ExporterInstance
	w     *ourWorker
	store string
}

func (e imageExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	resp, finalize, desc, err := e.ExporterInstance.Export(ctx, src, info)
	if err != nil || e.store == "false" {
		return resp, finalize, desc, err
	}
	if err := e.runnable(ctx, src, desc.Descriptor()); err != nil {
		desc.Release()
		return nil, nil, nil, err
	}
	id := desc.Descriptor().Digest.String()
	if img, err := e.w.store.Resolve(ctx, id, ""); err == nil {
		id = img.ID
	}
	e.w.store.Event(ctx, "create", id, "")
	return resp, finalize, desc, nil
}

// runnable ties this machine's image of the result to its snapshot. desc's lease keeps the config meanwhile.
func (e imageExport) runnable(ctx context.Context, src *exporter.Source, desc ocispec.Descriptor) error {
	ctx = namespaces.WithNamespace(ctx, e.w.parts.Namespace)
	for _, m := range manifests(ctx, e.w.parts.Content, desc) {
		ref := refFor(src, m)
		if ref == nil {
			continue
		}
		if err := ref.Finalize(ctx); err != nil {
			return err
		}
		snapshot := ref.GetString("cache.snapshot")
		if snapshot == "" {
			snapshot = ref.ID()
		}
		var doc struct {
			Config ocispec.Descriptor `json:"config"`
		}
		if err := readJSON(ctx, e.w.parts.Content, m, &doc); err != nil {
			return err
		}
		if _, err := e.w.parts.Snapshots.Stat(ctx, snapshot); err != nil {
			continue // a layer that was not needed for the build and is unpacked when it is run
		}
		if err := e.w.store.Built(ctx, doc.Config.Digest, snapshot); err != nil {
			return errs.Wrap(err, "record the image's root filesystem")
		}
	}
	return nil
}

// manifests are the image manifests of what was exported.
func manifests(ctx context.Context, cs content.Store, desc ocispec.Descriptor) []ocispec.Descriptor {
	if !strings.Contains(desc.MediaType, "index") && !strings.Contains(desc.MediaType, "manifest.list") {
		return []ocispec.Descriptor{desc}
	}
	var index ocispec.Index
	if readJSON(ctx, cs, desc, &index) != nil {
		return nil
	}
	var list []ocispec.Descriptor
	for _, m := range index.Manifests {
		if m.Annotations["vnd.docker.reference.type"] == "" {
			list = append(list, m)
		}
	}
	return list
}

// refFor finds what was built for the manifest's platform.
func refFor(src *exporter.Source, m ocispec.Descriptor) cache.ImmutableRef {
	if len(src.Refs) == 0 {
		return src.Ref
	}
	if m.Platform == nil {
		return nil
	}
	for key, ref := range src.Refs {
		if p, err := platforms.Parse(key); err == nil && platforms.OnlyStrict(p).Match(*m.Platform) {
			return ref
		}
	}
	return nil
}

func readJSON(ctx context.Context, cs content.Store, desc ocispec.Descriptor, into any) error {
	data, err := content.ReadBlob(ctx, cs, ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size})
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// newDiffer packs what a step changed, where BuildKit cannot read it from the overlay.
func newDiffer(cs content.Store) diff.Comparer { return walking.NewWalkingDiff(cs) }

// gcPolicy is BuildKit's own within the administrator's limits, or the administrator's.
func gcPolicy(root string, p Policy) ([]client.PruneInfo, error) {
	if p.KeepAll {
		return nil, nil
	}
	var out []client.PruneInfo
	for _, rule := range p.Rules {
		r, err := pruneRequest(rule, time.Now())
		if err != nil {
			return nil, errs.Wrap(err, "rules of the build cache")
		}
		out = append(out, client.PruneInfo{Filter: r.Filter, All: r.All, KeepDuration: time.Duration(r.KeepDuration), ReservedSpace: r.ReservedSpace,
			MaxUsedSpace: r.MaxUsedSpace, MinFreeSpace: r.MinFreeSpace})
	}
	if out != nil {
		return out, nil
	}
	free, _ := disk.GetDiskStat(root)
	cfg := config.GCConfig{GCReservedSpace: config.DiskSpace{Bytes: p.Keep.ReservedSize}, GCMaxUsedSpace: config.DiskSpace{Bytes: p.Keep.MaxUsed},
		GCMinFreeSpace: config.DiskSpace{Bytes: p.Keep.MinFree}}
	for _, rule := range config.DefaultGCPolicy(cfg, free) {
		out = append(out, client.PruneInfo{Filter: rule.Filters, All: rule.All, KeepDuration: rule.KeepDuration.Duration,
			ReservedSpace: rule.ReservedSpace.AsBytes(free), MaxUsedSpace: rule.MaxUsedSpace.AsBytes(free), MinFreeSpace: rule.MinFreeSpace.AsBytes(free)})
	}
	return out, nil
}
