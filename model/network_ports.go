package model

// Named says whether r, as a user names a published port to take it back, means this one: by container port, and by host
// port and address where given. It works on bindings as asked (a range or an ephemeral port) and as bound.
func (b PortBinding) Named(r PortBinding) bool {
	last := max(b.HostPort, b.HostPortEnd)
	port := r.HostPort == 0 || b.HostPort == 0 || b.HostPort <= r.HostPort && r.HostPort <= last
	addr := !r.HostIP.IsValid() || r.HostIP == b.HostIP || r.HostIP.IsUnspecified() && !b.HostIP.IsValid()
	return b.Port == r.Port && port && addr
}

// WithPorts gives the bindings without those that remove names, and with those of add. missing are those of remove that
// name nothing.
func WithPorts(have, add, remove []PortBinding) (out, missing []PortBinding) {
	hit := make([]bool, len(remove))
	for _, b := range have {
		named := false
		for i, r := range remove {
			if b.Named(r) {
				named, hit[i] = true, true
			}
		}
		if !named {
			out = append(out, b)
		}
	}
	for i, r := range remove {
		if !hit[i] {
			missing = append(missing, r)
		}
	}
	return append(out, add...), missing
}
