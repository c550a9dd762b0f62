package server

import (
	"context"
	"io"
	"net/netip"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/events"
)

// Backends are the rooms behind the API. One value may stand in several fields: *engine.Engine is the first five.
type Backends struct {
	Containers Containers
	Life       Life
	Streams    Streams
	Files      Files
	Execs      Execs
	Making
	Networks Networks
	Volumes  Volumes
	System   System
	Events   *events.Bus
}

// Making are the rooms that keep, move and make images.
type Making struct {
	Images   Images
	Transfer ImageTransfer
	Registry Registry
	Builds   Builds
}

// Containers keeps the containers' records: a container is there from Create until Remove.
type Containers interface {
	Create(context.Context, model.CreateRequest) (model.CreateResult, error)
	List(context.Context, model.ListOptions) ([]model.ContainerView, error)
	Inspect(ctx context.Context, ref string, size bool) (model.ContainerView, error)
	Rename(ctx context.Context, ref, name string) error
	Update(ctx context.Context, ref string, u model.UpdateRequest) (warnings []string, err error)
	Remove(ctx context.Context, ref string, o model.RemoveOptions) error
	Prune(context.Context, model.Filters) (model.PruneResult, error)
	Counts() (running, paused, stopped int)
}

// Life moves containers between their states. Wait is registered when it returns; its channel gives one result.
type Life interface {
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o model.StopOptions) error
	Restart(ctx context.Context, ref string, o model.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Wait(ctx context.Context, ref string, c model.WaitCondition) (<-chan model.WaitResult, error)
}

// Streams are what flows out of running containers. Logs and Attach return when the stream ended or ctx did; Attach calls
// Ready first, and after an error before Ready nothing was sent to the client.
type Streams interface {
	Logs(ctx context.Context, ref string, o model.LogOptions, emit func(model.LogEntry) error) error
	Attach(ctx context.Context, ref string, o model.AttachOptions) error
	Resize(ctx context.Context, ref string, height, width uint) error
	Stats(ctx context.Context, ref string) (model.Stats, error)
	Top(ctx context.Context, ref, psArgs string) (model.TopResult, error)
}

// Files gives access to containers' root filesystems. CopyFrom's reader is closed by the caller.
type Files interface {
	Changes(ctx context.Context, ref string) ([]model.Change, error)
	Export(ctx context.Context, ref string, w io.Writer) error
	StatPath(ctx context.Context, ref, path string) (model.PathStat, error)
	CopyFrom(ctx context.Context, ref, path string) (io.ReadCloser, model.PathStat, error)
	CopyTo(ctx context.Context, ref, path string, tar io.Reader, noOverwriteDirNonDir, copyUIDGID bool) error
	Commit(ctx context.Context, c model.CommitRequest) (imageID string, err error)
}

// Execs are processes beside a container's own: made by ExecCreate, run once by ExecStart, forgotten some time after.
type Execs interface {
	ExecCreate(ctx context.Context, ref string, s model.ExecSpec) (id string, err error)
	ExecStart(ctx context.Context, id string, o model.ExecStartOptions) error
	ExecResize(ctx context.Context, id string, height, width uint) error
	ExecInspect(ctx context.Context, id string) (model.Exec, error)
}

// Images keeps the images of this node. List knows the filters before, dangling, label, reference, since, until.
type Images interface {
	List(ctx context.Context, f model.Filters, shared bool) ([]model.ImageSummary, error)
	Inspect(ctx context.Context, ref, platform string) (model.Image, error) // platform "" is this host's
	Manifests(ctx context.Context, ref string) ([]model.ImageManifest, error)
	Tag(ctx context.Context, ref, name string) error
	Remove(ctx context.Context, ref string, o model.ImageRemoveOptions) ([]model.ImageDeletion, error)
	Prune(ctx context.Context, f model.Filters) (model.ImagePruneReport, error)
	Usage(ctx context.Context) (model.ImageUsage, error)
}

// ImageTransfer brings images in and out as archives. Load calls progress also with the sentence for each image loaded.
type ImageTransfer interface {
	Load(ctx context.Context, archive io.Reader, platforms []string, progress func(model.ImageProgress)) error
	Save(ctx context.Context, refs, platforms []string, w io.Writer) error
	Import(ctx context.Context, archive io.Reader, i model.ImageImport) (imageID string, err error)
}

// Registry brings images in and out over the network. Auth may be nil. Pull and Push of a name without tag mean all tags.
type Registry interface {
	Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error)
	Pull(ctx context.Context, ref, platform string, auth *registry.AuthConfig, progress func(model.ImageProgress)) error
	Push(ctx context.Context, ref, platform string, auth *registry.AuthConfig, progress func(model.ImageProgress)) error
	Search(ctx context.Context, term string, limit int, f model.Filters, auth *registry.AuthConfig) ([]registry.SearchResult, error)
	Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error)
	Download(ctx context.Context, address string) (content io.ReadCloser, size int64, err error) // of any web server
}

// NetworkView is a network with what is on it now.
type NetworkView struct {
	model.Network
	Endpoints map[string]NetworkMember         // by container ID
	Subnets   map[netip.Prefix]model.SubnetUse // nil when not known
}

// NetworkMember is one container's place on a network.
type NetworkMember struct {
	model.Endpoint
	ContainerName string
}

// Networks keeps the networks. List knows the filters dangling, driver, id, label, name, scope, type.
type Networks interface {
	List(ctx context.Context, f model.Filters) ([]NetworkView, error)
	Inspect(ctx context.Context, ref string) (NetworkView, error)
	Create(ctx context.Context, s model.NetworkSpec) (id, warning string, err error)
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, f model.Filters) (deleted []string, err error)
	Connect(ctx context.Context, network, container string, s model.EndpointSpec) error
	Disconnect(ctx context.Context, network, container string, force bool) error
}

// Volumes keeps the volumes. List knows the filters dangling, driver, label, name; usage fills Usage.
type Volumes interface {
	List(ctx context.Context, f model.Filters, usage bool) (volumes []model.Volume, warnings []string, err error)
	Inspect(ctx context.Context, name string) (model.Volume, error)
	Create(ctx context.Context, v model.Volume) (model.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, f model.Filters) (model.VolumePruneReport, error)
}

// System tells about the daemon and its host. Info leaves the counts of containers and images, the time and the number of
// event listeners to the server.
type System interface {
	Info(ctx context.Context) (system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
}
