package runflags

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

type health struct {
	cmd           string
	interval      time.Duration
	timeout       time.Duration
	startPeriod   time.Duration
	startInterval time.Duration
	retries       int
	none          bool
}

func (h *health) add(fs *pflag.FlagSet) {
	fs.StringVar(&h.cmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&h.interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.DurationVar(&h.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&h.startPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&h.startInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.IntVar(&h.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.BoolVar(&h.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

func (h *health) apply(_ *pflag.FlagSet, r *Request) error {
	asked := h.cmd != "" || h.interval != 0 || h.timeout != 0 || h.startPeriod != 0 || h.startInterval != 0 || h.retries != 0
	if h.none && asked {
		return invalid("--no-healthcheck conflicts with --health-* options")
	}
	if h.none {
		r.Config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	if !asked {
		return nil
	}
	for _, n := range []struct {
		name     string
		negative bool
	}{
		{"interval", h.interval < 0}, {"timeout", h.timeout < 0}, {"retries", h.retries < 0},
		{"start-period", h.startPeriod < 0}, {"start-interval", h.startInterval < 0},
	} {
		if n.negative {
			return invalid("--health-%s cannot be negative", n.name)
		}
	}
	var test []string
	if h.cmd != "" {
		test = []string{"CMD-SHELL", h.cmd}
	}
	r.Config.Healthcheck = &container.HealthConfig{Test: test, Interval: h.interval, Timeout: h.timeout,
		StartPeriod: h.startPeriod, StartInterval: h.startInterval, Retries: h.retries}
	return nil
}
