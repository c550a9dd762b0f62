package model

import (
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// LocalDriver is the volume driver that keeps volumes on this node's disk.
const LocalDriver = "local"

// Volume is a place for data that outlives the containers that use it.
type Volume struct {
	Name       string
	Driver     string
	Mountpoint string // directory of the data on the host; for volumes mounted on use, where they would be
	Created    time.Time
	Labels     map[string]string
	Options    map[string]string // driver options: type, device, o
	Anonymous  bool              // made for a container that named none; removed with it on request
	Usage      *VolumeUsage      // nil when not asked for
	Scope      string            // ScopeLocal or ScopeGlobal; empty: local
	Status     map[string]any    // what a plug-in says of it
}

// VolumeUsage is what a volume takes and who uses it.
type VolumeUsage struct {
	Size     int64 // bytes on disk; -1 when it cannot be known (for example NFS)
	RefCount int   // containers that refer to it
}

// VolumeMount says how the runtime gets the volume into a container: as an OCI mount entry.
type VolumeMount struct {
	Type    string   // "bind", or a filesystem type such as "tmpfs" and "nfs"
	Source  string   // directory, device or remote
	Options []string // as an OCI runtime takes them
}

// VolumePruneReport says what a prune took away.
type VolumePruneReport struct {
	Deleted   []string
	Reclaimed int64 // bytes
}

const maxVolumeName = 255

// ValidateVolumeName refuses names that could not be a directory's, as the Docker Engine does.
func ValidateVolumeName(name string) error {
	const rule = "a volume name is 2 to 255 letters, digits, '_', '.' or '-', and starts with a letter or digit; " +
		"to use a directory of the host, give its absolute path"
	if len(name) < 2 || len(name) > maxVolumeName || !isLetterOrDigit(name[0]) ||
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
		return errs.New(errs.Invalid, "invalid volume name %q: %s", name, rule)
	}
	return nil
}
