package server

import (
	"context"

	"github.com/moby/moby/api/types/system"

	"github.com/shoalhq/shoal/api/access"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Narrow gives the rooms as the users of a scoped socket see them: other objects are not there, and what may be secret is
// taken out. Rooms that no scope can reach are empty, so that a mistake about a route's right opens nothing. What is done
// to a container is done to the one that was looked at, by its ID.
func Narrow(b Backends, s *access.Scope) Backends {
	out := Backends{Containers: scopedContainers{b.Containers, s}, System: scopedSystem{b.System}, Events: b.Events,
		Files: struct{ Files }{}, Execs: struct{ Execs }{}}
	look := func(ctx context.Context, ref string) (string, error) {
		v, err := out.Containers.Inspect(ctx, ref, false)
		return v.ID, err
	}
	out.Life = scopedLife{b.Life, look}
	out.Streams = scopedStreams{b.Streams, look}
	if b.Images != nil {
		out.Images = scopedImages{b.Images, s}
	}
	if b.Networks != nil {
		out.Networks = scopedNetworks{b.Networks, out.Containers, s}
	}
	if b.Volumes != nil {
		out.Volumes = scopedVolumes{b.Volumes, s}
	}
	return out
}

// lookup finds the ID of a container that may be seen.
type lookup func(ctx context.Context, ref string) (id string, err error)

func outside() error {
	return errs.New(errs.Forbidden, "this needs the full API, not that of a scoped socket")
}

type scopedContainers struct {
	all   Containers
	scope *access.Scope
}

func (c scopedContainers) Inspect(ctx context.Context, ref string, size bool) (model.ContainerView, error) {
	v, err := c.all.Inspect(ctx, ref, size)
	switch {
	case errs.Is(err, errs.NotFound) || err == nil && !c.scope.Sees(v.Spec.Labels):
		return model.ContainerView{}, c.scope.Unseen("container", ref)
	case errs.Is(err, errs.Conflict) || errs.Is(err, errs.Invalid): // a prefix of several, of which it would tell
		return model.ContainerView{}, c.scope.Unseen("container", ref)
	case err != nil:
		return model.ContainerView{}, err
	}
	access.Container(&v)
	return v, nil
}

func (c scopedContainers) List(ctx context.Context, o model.ListOptions) ([]model.ContainerView, error) {
	for _, key := range []string{"before", "since"} { // name another container
		for _, ref := range o.Filters[key] {
			if _, err := c.Inspect(ctx, ref, false); err != nil {
				return nil, err
			}
		}
	}
	o.Filters = c.scope.Narrow(o.Filters)
	list, err := c.all.List(ctx, o)
	kept := list[:0]
	for i := range list {
		if c.scope.Sees(list[i].Spec.Labels) {
			access.Container(&list[i])
			kept = append(kept, list[i])
		}
	}
	return kept, err
}

func (c scopedContainers) Remove(ctx context.Context, ref string, o model.RemoveOptions) error {
	v, err := c.Inspect(ctx, ref, false)
	if err != nil {
		return err
	}
	return c.all.Remove(ctx, v.ID, o)
}

func (c scopedContainers) Create(context.Context, model.CreateRequest) (model.CreateResult, error) {
	return model.CreateResult{}, outside()
}
func (c scopedContainers) Rename(context.Context, string, string) error { return outside() }
func (c scopedContainers) Update(context.Context, string, model.UpdateRequest) ([]string, error) {
	return nil, outside()
}
func (c scopedContainers) Prune(context.Context, model.Filters) (model.PruneResult, error) {
	return model.PruneResult{}, outside()
}
func (c scopedContainers) Counts() (running, paused, stopped int) { return 0, 0, 0 }

type scopedLife struct {
	all  Life
	look lookup
}

func (l scopedLife) do(ctx context.Context, ref string, f func(ctx context.Context, id string) error) error {
	id, err := l.look(ctx, ref)
	if err != nil {
		return err
	}
	return f(ctx, id)
}

func (l scopedLife) Start(ctx context.Context, ref string) error { return l.do(ctx, ref, l.all.Start) }
func (l scopedLife) Pause(ctx context.Context, ref string) error { return l.do(ctx, ref, l.all.Pause) }
func (l scopedLife) Unpause(ctx context.Context, ref string) error {
	return l.do(ctx, ref, l.all.Unpause)
}
func (l scopedLife) Stop(ctx context.Context, ref string, o model.StopOptions) error {
	return l.do(ctx, ref, func(ctx context.Context, id string) error { return l.all.Stop(ctx, id, o) })
}
func (l scopedLife) Restart(ctx context.Context, ref string, o model.StopOptions) error {
	return l.do(ctx, ref, func(ctx context.Context, id string) error { return l.all.Restart(ctx, id, o) })
}
func (l scopedLife) Kill(ctx context.Context, ref, signal string) error {
	return l.do(ctx, ref, func(ctx context.Context, id string) error { return l.all.Kill(ctx, id, signal) })
}
func (l scopedLife) Wait(ctx context.Context, ref string, c model.WaitCondition) (<-chan model.WaitResult, error) {
	id, err := l.look(ctx, ref)
	if err != nil {
		return nil, err
	}
	return l.all.Wait(ctx, id, c)
}

type scopedStreams struct {
	all  Streams
	look lookup
}

func (s scopedStreams) Logs(ctx context.Context, ref string, o model.LogOptions, emit func(model.LogEntry) error) error {
	id, err := s.look(ctx, ref)
	if err != nil {
		return err
	}
	return s.all.Logs(ctx, id, o, func(e model.LogEntry) error {
		e.Attrs = nil // may be variables of the environment
		return emit(e)
	})
}

func (s scopedStreams) Stats(ctx context.Context, ref string) (model.Stats, error) {
	id, err := s.look(ctx, ref)
	if err != nil {
		return model.Stats{}, err
	}
	return s.all.Stats(ctx, id)
}

// Top gives the columns that are always the same: ps can be told to show environments.
func (s scopedStreams) Top(ctx context.Context, ref, psArgs string) (model.TopResult, error) {
	if psArgs != "" && psArgs != "-ef" {
		return model.TopResult{}, errs.New(errs.Forbidden, "ps_args=%q: a scoped socket shows the usual columns only, since others show the environment; leave it out", psArgs)
	}
	id, err := s.look(ctx, ref)
	if err != nil {
		return model.TopResult{}, err
	}
	return s.all.Top(ctx, id, "")
}

func (s scopedStreams) Attach(context.Context, string, model.AttachOptions) error { return outside() }
func (s scopedStreams) Resize(context.Context, string, uint, uint) error          { return outside() }

type scopedImages struct {
	all   Images
	scope *access.Scope
}

func (i scopedImages) List(ctx context.Context, f model.Filters, shared bool) ([]model.ImageSummary, error) {
	list, err := i.all.List(ctx, i.scope.Narrow(f), false)
	kept := list[:0]
	for n := range list {
		if i.scope.Sees(list[n].Config.Labels) {
			kept = append(kept, list[n])
		}
	}
	return kept, err
}

func (i scopedImages) Inspect(ctx context.Context, ref, platform string) (model.Image, error) {
	img, err := i.all.Inspect(ctx, ref, platform)
	if err != nil || !i.scope.Sees(img.Config.Labels) {
		if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.Invalid) {
			return model.Image{}, err
		}
		return model.Image{}, i.scope.Unseen("image", ref)
	}
	access.Image(&img)
	return img, nil
}

func (i scopedImages) Manifests(ctx context.Context, ref string) ([]model.ImageManifest, error) {
	if _, err := i.Inspect(ctx, ref, ""); err != nil {
		return nil, err
	}
	list, err := i.all.Manifests(ctx, ref)
	for n := range list {
		list[n].Containers = nil
	}
	return list, err
}

func (i scopedImages) Tag(context.Context, string, string) error { return outside() }
func (i scopedImages) Remove(context.Context, string, model.ImageRemoveOptions) ([]model.ImageDeletion, error) {
	return nil, outside()
}
func (i scopedImages) Prune(context.Context, model.Filters) (model.ImagePruneReport, error) {
	return model.ImagePruneReport{}, outside()
}
func (i scopedImages) Usage(context.Context) (model.ImageUsage, error) {
	return model.ImageUsage{}, outside()
}

type scopedNetworks struct {
	all        Networks
	containers Containers // narrowed
	scope      *access.Scope
}

func (n scopedNetworks) List(ctx context.Context, f model.Filters) ([]NetworkView, error) {
	list, err := n.all.List(ctx, n.scope.Narrow(f))
	kept := list[:0]
	for i := range list {
		if n.scope.Sees(list[i].Labels) {
			kept = append(kept, n.view(ctx, list[i]))
		}
	}
	return kept, err
}

func (n scopedNetworks) Inspect(ctx context.Context, ref string) (NetworkView, error) {
	v, err := n.all.Inspect(ctx, ref)
	if err != nil || !n.scope.Sees(v.Labels) {
		if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.Invalid) {
			return NetworkView{}, err
		}
		return NetworkView{}, n.scope.Unseen("network", ref)
	}
	return n.view(ctx, v), nil
}

// view takes the members out that are not seen.
func (n scopedNetworks) view(ctx context.Context, v NetworkView) NetworkView {
	access.Network(&v.Network)
	seen := map[string]NetworkMember{}
	for id, m := range v.Endpoints {
		if _, err := n.containers.Inspect(ctx, id, false); err == nil {
			seen[id] = m
		}
	}
	v.Endpoints = seen
	return v
}

func (n scopedNetworks) Create(context.Context, model.NetworkSpec) (id, warning string, err error) {
	return "", "", outside()
}
func (n scopedNetworks) Remove(context.Context, string) error { return outside() }
func (n scopedNetworks) Prune(context.Context, model.Filters) ([]string, error) {
	return nil, outside()
}
func (n scopedNetworks) Connect(context.Context, string, string, model.EndpointSpec) error {
	return outside()
}
func (n scopedNetworks) Disconnect(context.Context, string, string, bool) error { return outside() }

type scopedVolumes struct {
	all   Volumes
	scope *access.Scope
}

func (v scopedVolumes) List(ctx context.Context, f model.Filters, usage bool) ([]model.Volume, []string, error) {
	list, _, err := v.all.List(ctx, v.scope.Narrow(f), false)
	kept := list[:0]
	for i := range list {
		if v.scope.Sees(list[i].Labels) {
			access.Volume(&list[i])
			kept = append(kept, list[i])
		}
	}
	return kept, nil, err
}

func (v scopedVolumes) Inspect(ctx context.Context, name string) (model.Volume, error) {
	vol, err := v.all.Inspect(ctx, name)
	if err != nil || !v.scope.Sees(vol.Labels) {
		if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Invalid) {
			return model.Volume{}, err
		}
		return model.Volume{}, v.scope.Unseen("volume", name)
	}
	access.Volume(&vol)
	return vol, nil
}

func (v scopedVolumes) Create(context.Context, model.Volume) (model.Volume, error) {
	return model.Volume{}, outside()
}
func (v scopedVolumes) Remove(context.Context, string, bool) error { return outside() }
func (v scopedVolumes) Prune(context.Context, model.Filters) (model.VolumePruneReport, error) {
	return model.VolumePruneReport{}, outside()
}

// scopedSystem tells the version; nothing of the host.
type scopedSystem struct{ all System }

func (s scopedSystem) Info(context.Context) (system.Info, error) { return system.Info{}, outside() }
func (s scopedSystem) Version(ctx context.Context) (system.VersionResponse, error) {
	return s.all.Version(ctx)
}
