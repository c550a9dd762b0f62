package runflags

import (
	"path"
	"regexp"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

type devices struct {
	list  opts.ListOpts
	rules opts.ListOpts
	gpus  opts.GpuOpts
}

func (d *devices) add(fs *pflag.FlagSet) {
	d.list = opts.NewListOpts(nil)
	d.rules = opts.NewListOpts(cgroupRule)
	fs.Var(&d.list, "device", "Add a host device to the container")
	fs.Var(&d.rules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(&d.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

func (d *devices) apply(_ *pflag.FlagSet, r *Request) error {
	h := r.HostConfig
	h.DeviceCgroupRules = d.rules.GetSlice()
	h.DeviceRequests = d.gpus.Value()
	h.Devices = []container.DeviceMapping{}
	var cdi []string
	for _, dev := range d.list.GetSlice() {
		if parser.IsQualifiedName(dev) {
			cdi = append(cdi, dev)
			continue
		}
		m, err := deviceMapping(dev)
		if err != nil {
			return err
		}
		h.Devices = append(h.Devices, m)
	}
	if len(cdi) > 0 {
		h.DeviceRequests = append(h.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

// deviceMapping parses HOST[:CONTAINER][:MODE], where MODE is made of r, w and m.
func deviceMapping(dev string) (container.DeviceMapping, error) {
	f := strings.Split(dev, ":")
	if len(f) > 3 || f[0] == "" {
		return container.DeviceMapping{}, invalid("bad format for path: %s; use --device HOST[:CONTAINER][:rwm]", dev)
	}
	m := container.DeviceMapping{PathOnHost: f[0], CgroupPermissions: "rwm"}
	switch {
	case len(f) == 3:
		if !deviceMode(f[2]) {
			return m, invalid("bad mode specified: %s; a device's mode is made of r, w and m", f[2])
		}
		m.PathInContainer, m.CgroupPermissions = f[1], f[2]
	case len(f) == 2 && deviceMode(f[1]):
		m.PathOnHost, m.CgroupPermissions = path.Clean(f[0]), f[1]
	case len(f) == 2:
		m.PathInContainer = path.Clean(f[1])
	default:
		m.PathOnHost = path.Clean(f[0])
	}
	if len(f) < 3 && m.PathInContainer == "" {
		m.PathInContainer = m.PathOnHost
	}
	if !path.IsAbs(m.PathInContainer) {
		return m, invalid("%s is not an absolute path", m.PathInContainer)
	}
	return m, nil
}

func deviceMode(mode string) bool {
	if mode == "" || len(mode) > 3 {
		return false
	}
	for i := range len(mode) {
		if !strings.Contains("rwm", mode[i:i+1]) || strings.Contains(mode[:i], mode[i:i+1]) {
			return false
		}
	}
	return true
}

func cgroupRule(val string) (string, error) {
	// Compiled here and not at start: few commands have this flag.
	if regexp.MustCompile(`^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`).MatchString(val) {
		return val, nil
	}
	return val, invalid("invalid device cgroup format '%s': use TYPE MAJOR:MINOR MODE, for example \"c 10:200 rwm\"", val)
}
