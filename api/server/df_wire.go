package server

import (
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// diskUsageAnswer is GET /system/df of all versions: those from 1.52 have the embedded part, those until 1.52 the others.
type diskUsageAnswer struct {
	*system.DiskUsage
	LayersSize  *int64               `json:",omitzero"`
	Images      *[]any               `json:",omitzero"`
	Containers  []container.Summary  `json:",omitzero"`
	Volumes     []volume.Volume      `json:",omitzero"`
	BuildCache  *[]build.CacheRecord `json:",omitzero"`
	BuilderSize *int64               `json:",omitzero"` // 1.31 to 1.41
}
