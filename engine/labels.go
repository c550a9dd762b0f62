package engine

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Labels puts containers under the host's SELinux policy. Labels are made at create (New) and are the container's own until
// it is removed (Release); after a restart of the daemon those of all containers are kept (Keep) before new ones are made.
type Labels interface {
	// New makes the labels of a container's processes and files from options such as "type:svirt_t" or "disable"; with
	// disable the processes have none.
	New(options []string) (process, files string, err error)
	// Like gives the options by which New makes labels that may share with the processes of another container.
	Like(process string) ([]string, error)
	Keep(process string)
	Release(process string)
	// Relabel gives the files below a path to one container, or with shared to all.
	Relabel(path, files string, shared bool) error
}

// checkSecurityModules refuses what the host's security modules cannot do. label=disable and unconfined are granted where
// there is nothing to switch off.
func (e *Engine) checkSecurityModules(sec ocispec.Security) error {
	if sec.AppArmor != "" && sec.AppArmor != "unconfined" && !e.cfg.Host.AppArmor {
		return errs.New(errs.Unsupported, "security option apparmor=%s: AppArmor is not enabled on this host; leave the option out", sec.AppArmor)
	}
	for _, l := range sec.Labels {
		if name, _, _ := strings.Cut(l, ":"); l != "disable" {
			switch {
			case e.ports.Labels == nil:
				return errs.New(errs.Unsupported, "security option label=%s: SELinux is not enabled here, by the host's kernel and the daemon's option --selinux-enabled; leave the option out", l)
			case name != "user" && name != "role" && name != "type" && name != "level" && name != "filetype":
				return invalid("invalid --security-opt label=%s: want disable, or user, role, type, level or filetype, a colon and the value", l)
			}
		}
	}
	return nil
}

// settleLabels makes the container's SELinux labels and notes its AppArmor profile.
func (e *Engine) settleLabels(c *model.Container, undo func(func())) error {
	sec, err := ocispec.ParseSecurity(c.Spec.Security.Options)
	if err != nil {
		return err
	}
	c.Runtime.AppArmorProfile = ocispec.AppArmor(c.Spec.Security.Privileged, sec, e.cfg.Host)
	if e.ports.Labels == nil {
		return nil
	}
	options, err := e.labelOptions(c, sec)
	if err != nil {
		return err
	}
	c.Runtime.ProcessLabel, c.Runtime.MountLabel, err = e.ports.Labels.New(options)
	if err != nil {
		return errs.As(errs.Invalid, errs.Wrap(err, "security option label=%s", strings.Join(options, ",")))
	}
	undo(func() { e.releaseLabel(c) })
	return nil
}

// labelOptions are the user's, else as Docker has it: no confinement where the machine's own processes are shared, and
// that of the container whose processes or memory are shared.
func (e *Engine) labelOptions(c *model.Container, sec ocispec.Security) ([]string, error) {
	iso := &c.Spec.Isolation
	switch {
	case len(sec.Labels) > 0:
		return sec.Labels, nil
	case c.Spec.Security.Privileged, iso.IPC == "host", iso.PID == "host":
		return []string{"disable"}, nil
	}
	for _, mode := range []string{iso.IPC, iso.PID} {
		id, join := strings.CutPrefix(mode, "container:")
		if !join {
			continue
		}
		other, err := e.find(id)
		if err != nil {
			return nil, err
		}
		label := other.get().Runtime.ProcessLabel
		if label == "" {
			return []string{"disable"}, nil
		}
		return e.ports.Labels.Like(label)
	}
	return nil, nil
}

func (e *Engine) releaseLabel(c *model.Container) {
	if e.ports.Labels != nil && c.Runtime.ProcessLabel != "" {
		e.ports.Labels.Release(c.Runtime.ProcessLabel)
	}
}

// relabel makes a mount's files accessible: those of a bind when z or Z says so, those of a volume always, to all
// containers unless Z says to this one only.
func (e *Engine) relabel(c *model.Container, mp *model.MountPoint, path string) error {
	if e.ports.Labels == nil || c.Runtime.MountLabel == "" {
		return nil
	}
	private, shared := false, mp.Type == "volume"
	for opt := range strings.SplitSeq(mp.Mode, ",") {
		private = private || opt == "Z"
		shared = shared || opt == "z"
	}
	if !private && !shared {
		return nil
	}
	err := e.ports.Labels.Relabel(path, c.Runtime.MountLabel, !private)
	if errors.Is(err, unix.ENOTSUP) { // file systems without labels get theirs from the mount
		return nil
	}
	return errs.Wrap(err, "give the files of %s to the container's SELinux label", path)
}
