package server

import (
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// diskUsageAnswer is GET /system/df of all versions: those from 1.52 have the embedded part, those until 1.52 the others.
type diskUsageAnswer struct {
	*system.DiskUsage
	LayersSize  *int64              `json:",omitempty"`
	Images      *[]any              `json:",omitempty"`
	Containers  []container.Summary `json:",omitempty"`
	Volumes     []volume.Volume     `json:",omitempty"`
	BuildCache  *[]struct{}         `json:",omitempty"`
	BuilderSize *int64              `json:",omitempty"` // 1.31 to 1.41
}
