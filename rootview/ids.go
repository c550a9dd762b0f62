package rootview

import (
	"archive/tar"
	"fmt"
	"os"
	"strings"

	"github.com/shoalhq/shoal/model"
)

// idsOf reads which ids of the host a running container's are; nil when they are the same.
func idsOf(pid int) (*model.IDMaps, error) {
	var m model.IDMaps
	for name, to := range map[string]*[]model.IDMap{"uid_map": &m.UIDs, "gid_map": &m.GIDs} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			var one model.IDMap
			if _, err := fmt.Sscan(line, &one.Container, &one.Host, &one.Size); err != nil {
				return nil, fmt.Errorf("read /proc/%d/%s: %w", pid, name, err)
			}
			*to = append(*to, one)
		}
	}
	if all := []model.IDMap{{Container: 0, Host: 0, Size: 1<<32 - 1}}; len(m.UIDs) == 1 && m.UIDs[0] == all[0] && len(m.GIDs) == 1 && m.GIDs[0] == all[0] {
		return nil, nil
	}
	return &m, nil
}

// nobody is what a container sees of owners that it has no id for.
const nobody = 65534

// inside gives an archive entry the ids that the container knows.
func inside(m *model.IDMaps, h *tar.Header) {
	if m == nil {
		return
	}
	change := func(list []model.IDMap, id *int) {
		if own, ok := model.ContainerID(list, uint32(*id)); ok {
			*id = int(own)
		} else {
			*id = nobody
		}
	}
	change(m.UIDs, &h.Uid)
	change(m.GIDs, &h.Gid)
}

// outside gives an archive entry the ids of the host; an owner that the container cannot have becomes its root.
func outside(m *model.IDMaps, h *tar.Header) {
	if m == nil {
		return
	}
	change := func(list []model.IDMap, id *int) {
		own, ok := model.HostID(list, uint32(*id))
		if !ok {
			own, _ = model.HostID(list, 0)
		}
		*id = int(own)
	}
	change(m.UIDs, &h.Uid)
	change(m.GIDs, &h.Gid)
}
