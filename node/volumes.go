package node

import (
	"context"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/volume"
)

// apiVolumes shows the volume room as the API wants it. Removing goes through the engine, which knows the containers.
type apiVolumes struct {
	*volume.Volumes
	engine *engine.Engine
}

func (a apiVolumes) Remove(ctx context.Context, name string, force bool) error {
	return a.engine.RemoveVolume(ctx, name, force)
}
