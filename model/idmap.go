package model

// IDMap gives Size ids of a container, from Container on, the host's ids from Host on.
type IDMap struct{ Container, Host, Size uint32 }

// IDMaps says which ids of the host a container's users and groups are.
type IDMaps struct{ UIDs, GIDs []IDMap }

// Root is the host's ids of the container's root.
func (m *IDMaps) Root() (uid, gid int) {
	u, _ := HostID(m.UIDs, 0)
	g, _ := HostID(m.GIDs, 0)
	return int(u), int(g)
}

// HostID is the host's id of a container's.
func HostID(list []IDMap, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.Container && id-m.Container < m.Size {
			return m.Host + id - m.Container, true
		}
	}
	return 0, false
}

// ContainerID is the container's id of the host's.
func ContainerID(list []IDMap, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.Host && id-m.Host < m.Size {
			return m.Container + id - m.Host, true
		}
	}
	return 0, false
}
