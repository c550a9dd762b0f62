package runflags

import (
	"net/netip"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

type ports struct {
	publish    opts.ListOpts
	publishAll bool
	expose     opts.ListOpts
}

func (p *ports) add(fs *pflag.FlagSet) {
	p.publish, p.expose = opts.NewListOpts(nil), opts.NewListOpts(nil)
	fs.VarP(&p.publish, "publish", "p", "Publish a container's port(s) to the host (published=8080,target=80,from=192.0.2.0/24 limits who may connect)")
	fs.BoolVarP(&p.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(&p.expose, "expose", "Expose a port or a range of ports")
}

func (p *ports) apply(_ *pflag.FlagSet, r *Request) error {
	r.HostConfig.PublishAllPorts = p.publishAll
	specs := make([]string, 0, p.publish.Len())
	for _, s := range p.publish.GetSlice() {
		if strings.Contains(s, "from=") {
			r.Limited = append(r.Limited, s)
			continue
		}
		spec, err := shortForm(s)
		if err != nil {
			return err
		}
		specs = append(specs, spec)
	}
	exposed, bindings, err := nat.ParsePortSpecs(specs)
	if err != nil {
		return invalid("--publish %s: %w; want [ADDRESS:][HOST-PORT:]CONTAINER-PORT[/tcp|udp|sctp], such as 8080:80 or 127.0.0.1:53:53/udp",
			strings.Join(specs, ", "), err)
	}
	r.HostConfig.PortBindings = network.PortMap{}
	r.Config.ExposedPorts = network.PortSet{}
	for port := range exposed {
		q, err := network.ParsePort(string(port))
		if err != nil {
			return invalid("--publish: %w", err)
		}
		r.Config.ExposedPorts[q] = struct{}{}
		list := []network.PortBinding{}
		for _, b := range bindings[port] {
			var ip netip.Addr
			if b.HostIP != "" {
				if ip, err = netip.ParseAddr(b.HostIP); err != nil {
					return invalid("--publish: host address: %w", err)
				}
			}
			list = append(list, network.PortBinding{HostIP: ip, HostPort: b.HostPort})
		}
		r.HostConfig.PortBindings[q] = list
	}
	for _, e := range p.expose.GetSlice() {
		pr, err := network.ParsePortRange(e)
		if err != nil {
			return invalid("invalid range format for --expose: %w", err)
		}
		for q := range pr.All() {
			r.Config.ExposedPorts[q] = struct{}{}
		}
	}
	return nil
}

// shortForm turns published=8080,target=80,protocol=udp into 8080:80/udp.
func shortForm(spec string) (string, error) {
	if !strings.Contains(spec, "=") {
		return spec, nil
	}
	v := map[string]string{"protocol": "tcp"}
	for param := range strings.SplitSeq(spec, ",") {
		key, val, ok := strings.Cut(param, "=")
		if !ok || key == "" {
			return "", invalid("invalid publish opts format (should be name=value but got '%s')", param)
		}
		switch key {
		case "published", "target", "protocol", "host_ip":
			v[key] = val
		case "mode", "app_protocol", "name": // of services; nothing here depends on them
		default:
			return "", invalid("--publish %s: unknown %q; there are published, target, protocol, host_ip and from", spec, key)
		}
	}
	short := v["published"] + ":" + v["target"] + "/" + v["protocol"]
	if ip := v["host_ip"]; strings.Contains(ip, ":") {
		short = "[" + strings.Trim(ip, "[]") + "]:" + short
	} else if ip != "" {
		short = ip + ":" + short
	}
	return short, nil
}
