// Package engine holds the use cases of one node: a container's whole life (create, start, stop, restart policies,
// health checks, remove), its streams, files, statistics and clean-up. It decides and records; the other rooms act,
// through the small interfaces in ports.go. It must not know HTTP, OCI's command line, netlink or the cluster.
//
// What the API's route groups call (each declares the part it needs as its own interface), all methods of *Engine:
//
//	Create(ctx, model.CreateRequest) (model.CreateResult, error)
//	List(ctx, model.ListOptions) ([]model.ContainerView, error)            newest first
//	Inspect(ctx, ref string, size bool) (model.ContainerView, error)       ref: ID, unique prefix, name
//	Start(ctx, ref string) error                                           errs.NotModified when it runs
//	Stop(ctx, ref string, model.StopOptions) error                         errs.NotModified when it does not run
//	Restart(ctx, ref string, model.StopOptions) error
//	Kill(ctx, ref, signal string) error
//	Pause(ctx, ref string) error; Unpause(ctx, ref string) error
//	Rename(ctx, ref, name string) error
//	Update(ctx, ref string, model.UpdateRequest) (warnings []string, err error)
//	Wait(ctx, ref string, model.WaitCondition) (<-chan model.WaitResult, error)   registered when it returns
//	Remove(ctx, ref string, model.RemoveOptions) error
//	Top(ctx, ref, psArgs string) (model.TopResult, error)
//	Logs(ctx, ref string, model.LogOptions, emit func(model.LogEntry) error) error
//	Attach(ctx, ref string, model.AttachOptions) error
//	Resize(ctx, ref string, height, width uint) error
//	Stats(ctx, ref string) (model.Stats, error)                            one reading
//	Changes(ctx, ref string) ([]model.Change, error)
//	Export(ctx, ref string, w io.Writer) error
//	StatPath(ctx, ref, path string) (model.PathStat, error)
//	CopyFrom(ctx, ref, path string) (io.ReadCloser, model.PathStat, error) tar
//	CopyTo(ctx, ref, path string, tar io.Reader, noOverwriteDirNonDir, copyUIDGID bool) error
//	Commit(ctx, model.CommitRequest) (imageID string, err error)
//	ExecCreate(ctx, ref string, model.ExecSpec) (id string, err error)
//	ExecStart(ctx, execID string, model.ExecStartOptions) error
//	ExecResize(ctx, execID string, height, width uint) error
//	ExecInspect(ctx, execID string) (model.Exec, error)
//	Prune(ctx, model.Filters) (model.PruneResult, error)
//	Counts() (running, paused, stopped int)
//
// Events go to observe/events. Image, volume and network endpoints call those rooms; where the engine must agree (an
// image, volume or network that a container uses), the engine offers the use case:
//
//	RemoveImage(ctx, ref string, force, noPrune bool) (untagged, deleted []string, err error)
//	RemoveVolume, RemoveNetwork, ConnectNetwork(ctx, network, ref, EndpointSpec), DisconnectNetwork(ctx, network, ref, force)
package engine
