package ocispec

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// MountIDMap reads the option idmap=uids=FILE-CONTAINER-COUNT[#...][;gids=...] of a -v, in podman's form: the IDs that files
// have, the IDs that the container sees, how many. What is given for one kind only counts for both.
func MountIDMap(option string) (uids, gids []specs.LinuxIDMapping, err error) {
	bad := func() error {
		return errs.New(errs.Invalid, "%q: want idmap=uids=FILE-CONTAINER-COUNT, more of these after a #, and for groups ;gids=...: "+
			"idmap=uids=0-1000-1 shows root's files as those of user 1000", option)
	}
	text, ok := strings.CutPrefix(option, "idmap=")
	if !ok {
		return nil, nil, bad()
	}
	for part := range strings.SplitSeq(text, ";") {
		kind, list, _ := strings.Cut(part, "=")
		to := map[string]*[]specs.LinuxIDMapping{"uids": &uids, "gids": &gids}[kind]
		if to == nil || *to != nil {
			return nil, nil, bad()
		}
		for entry := range strings.SplitSeq(list, "#") {
			m, ok := idMapping(entry)
			if !ok {
				return nil, nil, bad()
			}
			*to = append(*to, m)
		}
	}
	if uids == nil {
		uids = gids
	}
	if gids == nil {
		gids = uids
	}
	return uids, gids, nil
}

func idMapping(entry string) (m specs.LinuxIDMapping, ok bool) {
	fields := strings.Split(entry, "-")
	if len(fields) != 3 {
		return m, false
	}
	for i, to := range []*uint32{&m.ContainerID, &m.HostID, &m.Size} {
		n, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return m, false
		}
		*to = uint32(n)
	}
	return m, m.Size > 0 && uint64(m.ContainerID)+uint64(m.Size) < 1<<32 && uint64(m.HostID)+uint64(m.Size) < 1<<32
}

// withIDMap maps the IDs of a bind mount when its options say so.
func withIDMap(m specs.Mount, mp model.MountPoint, in MountInput) (specs.Mount, error) {
	options := strings.Split(mp.Mode, ",")
	i := slices.IndexFunc(options, func(o string) bool { return strings.HasPrefix(o, "idmap") })
	if i < 0 {
		return m, nil
	}
	if in.Mapped {
		return m, errs.New(errs.Unsupported, "mount on %s: %s cannot be had in a container with a user namespace, whose volumes are mapped to its own users already", mp.Destination, options[i])
	}
	uids, gids, err := MountIDMap(options[i])
	m.UIDMappings, m.GIDMappings = uids, gids
	return m, err
}
