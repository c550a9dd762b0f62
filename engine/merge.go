package engine

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// merge fills what the request leaves open with the image's values, by the Docker Engine's rules.
func merge(s *model.ContainerSpec, img model.ImageConfig) error {
	p := &s.Process
	if p.User == "" {
		p.User = img.User
	}
	if p.WorkingDir == "" {
		p.WorkingDir = img.WorkingDir
	}
	if len(p.Shell) == 0 {
		p.Shell = slices.Clone(img.Shell)
	}
	if s.Stop.Signal == "" {
		s.Stop.Signal = img.StopSignal
	}
	if len(s.Options.OnBuild) == 0 {
		s.Options.OnBuild = slices.Clone(img.OnBuild)
	}
	p.Env = mergeEnv(p.Env, img.Env)
	mergeCommand(p, img)
	if len(img.Labels) > 0 {
		labels := maps.Clone(img.Labels)
		maps.Copy(labels, s.Labels)
		s.Labels = labels
	}
	if len(img.Volumes) > 0 {
		volumes := map[string]struct{}{}
		maps.Copy(volumes, s.Storage.Volumes)
		for _, v := range img.Volumes {
			volumes[v] = struct{}{}
		}
		s.Storage.Volumes = volumes
	}
	if err := mergePorts(&s.Network, img.ExposedPorts); err != nil {
		return err
	}
	s.Health = mergeHealth(s.Health, img.Healthcheck)
	if p.WorkingDir == "" {
		p.WorkingDir = "/"
	}
	p.WorkingDir = path.Clean(p.WorkingDir)
	return nil
}

// mergeEnv keeps the container's variables and appends those of the image that it does not name.
func mergeEnv(own, img []string) []string {
	if len(own) == 0 {
		return slices.Clone(img)
	}
	names := make(map[string]bool, len(own))
	for _, e := range own {
		name, _, _ := strings.Cut(e, "=")
		names[name] = true
	}
	out := slices.Clone(own)
	for _, e := range img {
		if name, _, _ := strings.Cut(e, "="); !names[name] {
			out = append(out, e)
		}
	}
	return out
}

// mergeCommand: an entry point of one's own drops the image's command; {""} means none at all.
func mergeCommand(p *model.ProcessSpec, img model.ImageConfig) {
	if len(p.Entrypoint) == 0 {
		if len(p.Cmd) == 0 {
			p.Cmd = slices.Clone(img.Cmd)
		}
		if p.Entrypoint == nil {
			p.Entrypoint = slices.Clone(img.Entrypoint)
		}
	}
	if len(p.Entrypoint) == 1 && p.Entrypoint[0] == "" {
		p.Entrypoint = nil
	}
}

// maxExposed is every port of every protocol.
const maxExposed = 3 * 65535

func mergePorts(n *model.ContainerNetworkSpec, exposed []string) error {
	ports := slices.Clone(n.Exposed)
	total := 0
	for _, text := range exposed {
		first, last, proto, err := portRange(text)
		if err != nil {
			return errs.Wrap(err, "the image's exposed ports")
		}
		// Ranges that overlap a thousand times are what a hostile image has: they must not fill the daemon's memory.
		if total += int(last) - int(first) + 1; total > maxExposed {
			return errs.New(errs.Invalid, "the image exposes more than %d ports; make it anew with fewer EXPOSE", maxExposed)
		}
		for number := int(first); number <= int(last); number++ {
			ports = append(ports, model.Port{Number: uint16(number), Proto: proto})
		}
	}
	for _, b := range n.Publish {
		ports = append(ports, b.Port)
	}
	slices.SortFunc(ports, func(a, b model.Port) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Proto, b.Proto))
	})
	n.Exposed = slices.Compact(ports)
	return nil
}

// portRange reads "80", "80/tcp", "8000-8010/udp".
func portRange(text string) (first, last uint16, proto model.Proto, err error) {
	numbers, p, has := strings.Cut(text, "/")
	if !has {
		p = string(model.TCP)
	}
	proto = model.Proto(strings.ToLower(p))
	first, last, err = model.ParsePortRange(numbers)
	if err == nil && (first == 0 || !proto.Valid()) {
		err = errs.New(errs.Invalid, "port %q: want a number from 1 to 65535 or a range of them, with /tcp, /udp or /sctp", text)
	}
	return first, last, proto, err
}

// mergeHealth: what the request leaves open of a health check is the image's; {"NONE"} switches it off.
func mergeHealth(own, img *model.Healthcheck) *model.Healthcheck {
	if img == nil || own == nil {
		return cmp.Or(own, img)
	}
	h := *own
	if len(h.Test) == 0 {
		h.Test = slices.Clone(img.Test)
	}
	h.Interval = cmp.Or(h.Interval, img.Interval)
	h.Timeout = cmp.Or(h.Timeout, img.Timeout)
	h.StartPeriod = cmp.Or(h.StartPeriod, img.StartPeriod)
	h.StartInterval = cmp.Or(h.StartInterval, img.StartInterval)
	h.Retries = cmp.Or(h.Retries, img.Retries)
	return &h
}
