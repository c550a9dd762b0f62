package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// How long a server may take to be reached, and a filesystem to be mounted. The kernel's own patience with a server that is
// silent is minutes, and it does not tell why.
const (
	reachPatience = 5 * time.Second
	mountPatience = 30 * time.Second
)

// mountOnce mounts the volume's filesystem on its directory, unless it is; the caller holds the volume's lock.
func (v *Volumes) mountOnce(ctx context.Context, e *entry, vol model.Volume) error {
	mounted, err := mountinfo.Mounted(vol.Mountpoint)
	if err != nil || mounted {
		return err
	}
	kind, device := vol.Options["type"], vol.Options["device"]
	flags, data, err := options(kind, vol.Options["o"])
	if err != nil {
		return err
	}
	if kind == "cifs" || strings.HasPrefix(kind, "nfs") {
		if data, err = v.reach(ctx, kind, device, data); err != nil {
			return err
		}
	}
	err = v.mountBounded(e, func() error {
		return newest(nfsVersions(kind, data), func(version string) error { return v.mount(device, vol.Mountpoint, kind, flags, data+version) })
	}, func() {
		unix.Unmount(vol.Mountpoint, unix.MNT_DETACH)
	})
	hint := ""
	switch {
	case err == nil:
		return nil
	case errs.Is(err, errs.Unavailable):
		return fmt.Errorf("type %s, device %s: %w", kind, device, err)
	case errors.Is(err, unix.ENODEV):
		return errs.New(errs.Unsupported, "type %s, device %s: this kernel has no such filesystem (see /proc/filesystems); load its module, or choose another type: %w", kind, device, err)
	case errors.Is(err, unix.EINVAL):
		hint = "; the kernel's log (dmesg) may name the option it does not like"
	case errors.Is(err, unix.EPERM):
		hint = "; the daemon is not allowed to mount this"
	case errors.Is(err, unix.EACCES):
		hint = "; the server does not let this machine have it: see its exports, or the user and password among the options"
	case errors.Is(err, unix.ENOENT):
		hint = "; the device, or the directory on the server, does not exist"
	}
	return fmt.Errorf("type %s, device %s, options %q: %w%s", kind, device, withoutPassword(vol.Options["o"]), err, hint)
}

// nfsVersions are the endings of the options to try one after the other. Without a version the kernel would take 3 for nfs, which needs
// the server's port mapper, and 4.0 for nfs4; mount.nfs(8) takes the newest that the server speaks, and so do we.
func nfsVersions(kind, data string) []string {
	if kind != "nfs" && kind != "nfs4" {
		return []string{""}
	}
	for o := range strings.SplitSeq(data, ",") {
		switch name, value, _ := strings.Cut(o, "="); {
		case name == "vers", name == "nfsvers", name == "minorversion", name == "v2", name == "v3", strings.HasPrefix(name, "v4"):
			return []string{""}
		case name == "lock", name == "nolock", name == "udp", strings.HasPrefix(name, "mount"), name == "proto" && strings.HasPrefix(value, "udp"):
			return []string{""} // only version 3 has these
		}
	}
	list := []string{",vers=4.2", ",vers=4.1", ",vers=4.0"}
	if kind == "nfs" {
		list = append(list, ",vers=3")
	}
	return list
}

// newest tries until a version is spoken and has the directory: of version 4 the paths may begin elsewhere.
func newest(versions []string, mount func(string) error) (err error) {
	for _, version := range versions {
		e := mount(version)
		if e == nil {
			return nil
		}
		if err == nil || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
			err = e
		}
		if !errors.Is(e, unix.EPROTONOSUPPORT) && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
			return err
		}
	}
	return err
}

// optionText shows options in a message: what only the server may know is left out.
func optionText(options map[string]string) string {
	if len(options) == 0 {
		return "none"
	}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(options)) {
		list = append(list, k+"="+withoutPassword(options[k]))
	}
	return strings.Join(list, " ")
}

// withoutPassword keeps what only the server may know out of messages.
func withoutPassword(options string) string {
	list := strings.Split(options, ",")
	for i, o := range list {
		if name, _, has := strings.Cut(o, "="); has && strings.HasPrefix(name, "pass") {
			list[i] = name + "=***"
		}
	}
	return strings.Join(list, ",")
}

// mountBounded waits for a mount only so long. One that succeeds later is undone, and until it has ended there is no other.
func (v *Volumes) mountBounded(e *entry, mount func() error, undo func()) error {
	if e.pending != nil {
		select {
		case <-e.pending:
		default:
			return errs.New(errs.Unavailable, "an earlier mount still waits for the server; see whether it is up")
		}
	}
	done, ended := make(chan error), make(chan struct{}) // who takes from done is there, or late is closed
	e.pending = ended
	late := make(chan struct{})
	go func() {
		defer close(ended)
		err := mount()
		select {
		case <-late:
			if err == nil {
				undo()
			}
			v.cfg.Log.Warn("a mount that was given up has ended", "volume", e.volume.Name, "error", err)
		case done <- err:
		}
	}()
	timer := time.NewTimer(v.patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		close(late)
		return errs.New(errs.Unavailable, "the server accepts connections but has not let the filesystem be mounted within %s; see whether it is well", v.patience)
	}
}

// reach resolves the server's name, which the kernel cannot: addr=NAME becomes addr=ADDRESS, and a missing addr is taken
// from the device ("server:/path", "//server/share"). It makes sure that something listens there, because the kernel says
// nothing better than "timed out", after minutes.
func (v *Volumes) reach(ctx context.Context, kind, device, data string) (string, error) {
	var out []string
	addr, port, probe := "", "2049", true
	if kind == "cifs" {
		port = "445"
	}
	for o := range strings.SplitSeq(data, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch {
		case name == "addr", kind == "cifs" && name == "ip":
			addr = value
			continue
		case name == "port" && value != "0":
			port = value
		case name == "udp", name == "proto" && !strings.HasPrefix(value, "tcp"):
			probe = false
		}
		if o != "" {
			out = append(out, o)
		}
	}
	if addr == "" {
		addr = serverOf(kind, device)
	}
	if addr == "" {
		return "", errs.New(errs.Invalid, "device %q names no server; use o=addr=SERVER", device)
	}
	ctx, cancel := context.WithTimeout(ctx, min(reachPatience, v.patience))
	defer cancel()
	ip, err := net.DefaultResolver.LookupIPAddr(ctx, addr)
	if err != nil || len(ip) == 0 {
		return "", errs.New(errs.Unavailable, "server %q has no address: %w", addr, err)
	}
	chosen := ip[0].String()
	if probe {
		for _, a := range ip { // a name may have addresses at which nothing listens
			chosen = a.String()
			if err = knock(ctx, addr, net.JoinHostPort(chosen, port)); err == nil {
				break
			}
		}
		if err != nil {
			return "", err
		}
	}
	return strings.Join(append(out, "addr="+chosen), ","), nil
}

func serverOf(kind, device string) string {
	if kind == "cifs" {
		server, _, _ := strings.Cut(strings.TrimPrefix(strings.ReplaceAll(device, "\\", "/"), "//"), "/")
		return server
	}
	if rest, ok := strings.CutPrefix(device, "["); ok {
		server, _, _ := strings.Cut(rest, "]")
		return server
	}
	server, _, _ := strings.Cut(device, ":")
	return server
}

// knock finds out whether a server can be reached, and if not why.
func knock(ctx context.Context, server, at string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", at)
	if err == nil {
		return c.Close()
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errs.New(errs.Unavailable, "server %s can be reached, but nothing listens at %s: start its service, or give the port with o=port=", server, at)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return errs.New(errs.Unavailable, "server %s does not answer at %s within %s: see whether it is up, and whether a firewall is in between", server, at, reachPatience)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return errs.New(errs.Unavailable, "server %s (%s) cannot be reached: there is no way to it: %w", server, at, err)
	}
	return errs.New(errs.Unavailable, "server %s cannot be reached at %s: %w", server, at, err)
}
