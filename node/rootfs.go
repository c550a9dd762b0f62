package node

import (
	"context"
	"io"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/rootview"
)

// rootFS shows rootview as the engine wants it.
type rootFS struct{ rootview.FS }

func view(v engine.RootView) rootview.View {
	return rootview.View{Dirs: v.Dirs, Pid: v.Pid, Mounts: v.Mounts}
}

func (r rootFS) Stat(ctx context.Context, v engine.RootView, path string) (model.PathStat, error) {
	return r.FS.Stat(ctx, view(v), path)
}

func (r rootFS) CopyFrom(ctx context.Context, v engine.RootView, path string) (io.ReadCloser, model.PathStat, error) {
	return r.FS.CopyFrom(ctx, view(v), path)
}

func (r rootFS) CopyTo(ctx context.Context, v engine.RootView, path string, tar io.Reader, o engine.CopyToOptions) error {
	return r.FS.CopyTo(ctx, view(v), path, tar, rootview.CopyOptions(o))
}

func (r rootFS) Export(ctx context.Context, v engine.RootView, w io.Writer) error {
	return r.FS.Export(ctx, view(v), w)
}
