package node

import (
	"os"
	"os/exec"

	"github.com/moby/profiles/apparmor"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/node/config"
)

// labels shows SELinux as the engine wants it.
type labels struct{}

// openLabels is nil unless the administrator switched SELinux on, which needs a host that has it.
func openLabels(cfg *config.Config) (engine.Labels, error) {
	if !cfg.Container.Defaults.SELinux {
		return nil, nil
	}
	if !selinux.GetEnabled() {
		return nil, errs.New(errs.Unsupported, "--selinux-enabled: SELinux is not enabled on this host, so containers would run without the confinement asked for; boot with it or leave the option out")
	}
	return labels{}, nil
}

func (labels) New(options []string) (process, files string, err error) {
	return label.InitLabels(options)
}
func (labels) Like(process string) ([]string, error) { return selinux.DupSecOpt(process) }
func (labels) Keep(process string)                   { selinux.ReserveLabel(process) }
func (labels) Release(process string)                { selinux.ReleaseLabel(process) }
func (labels) Relabel(path, files string, shared bool) error {
	return label.Relabel(path, files, shared)
}

// appArmorProfile is what containers are confined by unless they say otherwise.
const appArmorProfile = "shoal-default"

// appArmorActive says whether this kernel confines by AppArmor profiles.
func appArmorActive() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(b) > 0 && b[0] == 'Y' && exists("/sys/kernel/security/apparmor")
}

// loadAppArmor makes sure that the kernel has the default profile. It can only be compiled by AppArmor's own program, which
// every distribution with AppArmor has; where it is missing, containers run unconfined, with a warning.
func (n *Node) loadAppArmor() string {
	if !appArmorActive() {
		return ""
	}
	loaded, err := apparmor.IsLoaded(appArmorProfile)
	if err == nil && !loaded {
		if _, err = exec.LookPath("apparmor_parser"); err == nil {
			err = apparmor.InstallDefault(appArmorProfile)
		}
	}
	if err != nil {
		n.log.Warn("containers run without an AppArmor profile: the default one cannot be loaded; install the package apparmor and start the daemon again",
			"profile", appArmorProfile, "reason", err)
		return ""
	}
	return appArmorProfile
}
