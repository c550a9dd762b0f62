package convert

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

// Summary is one element of GET /containers/json.
func Summary(view *model.ContainerView, v types.Version, now time.Time) container.Summary {
	c := &view.Container
	s := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.Image.Ref, ImageID: c.Image.ID, Command: command(c), Created: c.Created.Unix(),
		Ports: portSummaries(c), Labels: c.Spec.Labels, State: container.ContainerState(c.State.Status), Status: StatusText(&c.State, now),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: endpoints(c)}, Mounts: toMountPoints(c.Mounts),
	}
	if s.Image == "" {
		s.Image = c.Image.ID
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.HostConfig.NetworkMode = c.Spec.Network.Mode
	if v >= 46 {
		s.HostConfig.Annotations = c.Spec.Options.Annotations
	}
	s.ImageManifestDescriptor = imageManifest(c, v)
	if v >= 52 {
		s.Health = &container.HealthSummary{Status: container.NoHealthcheck}
		if h := c.State.Health; h != nil {
			s.Health.Status, s.Health.FailingStreak = container.HealthStatus(h.Status), h.FailingStreak
		}
	}
	for _, ep := range s.NetworkSettings.Networks { // lists do not tell names
		if v < 44 {
			ep.MacAddress = slices.Clone(ep.MacAddress)
		}
		ep.DNSNames = nil
	}
	if view.Size != nil {
		s.SizeRw, s.SizeRootFs = view.Size.Writable, view.Size.RootFS
	}
	return s
}

// command is the program and its arguments in one line, arguments with spaces quoted.
func command(c *model.Container) string {
	words := []string{c.Runtime.Path}
	for _, a := range c.Runtime.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// StatusText is the sentence of "docker ps": "Up 5 minutes (healthy)".
func StatusText(s *model.State, now time.Time) string {
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "Less than a second"
		}
		return units.HumanDuration(max(now.Sub(t), 0))
	}
	switch s.Status {
	case model.StatusRunning:
		if s.Health != nil && s.Health.Status != "" && s.Health.Status != "none" {
			status := s.Health.Status
			if status == "starting" {
				status = "health: starting"
			}
			return fmt.Sprintf("Up %s (%s)", ago(s.StartedAt), status)
		}
		return "Up " + ago(s.StartedAt)
	case model.StatusPaused:
		return fmt.Sprintf("Up %s (Paused)", ago(s.StartedAt))
	case model.StatusRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case model.StatusRemoving:
		return "Removal In Progress"
	case model.StatusDead:
		return "Dead"
	case model.StatusCreated:
		return "Created"
	}
	if s.FinishedAt.IsZero() {
		return "Exited"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
}

// portSummaries are the published and exposed ports, sorted.
func portSummaries(c *model.Container) []container.PortSummary {
	out := []container.PortSummary{}
	for p, list := range ports(c) {
		s := container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())}
		if len(list) == 0 {
			out = append(out, s)
		}
		for _, b := range list {
			s.IP, s.PublicPort = b.HostIP, hostPort(b)
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		if d := int(a.PrivatePort) - int(b.PrivatePort); d != 0 {
			return d
		}
		if d := a.IP.Compare(b.IP); d != 0 {
			return d
		}
		if d := int(a.PublicPort) - int(b.PublicPort); d != 0 {
			return d
		}
		return strings.Compare(a.Type, b.Type)
	})
	return out
}

func hostPort(b network.PortBinding) uint16 {
	first, _, _ := model.ParsePortRange(b.HostPort)
	return first
}
