package engine

import (
	"context"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
)

// rootView is how a container's files are seen now. The volumes of one that does not run are mounted for it, until release.
func (e *Engine) rootView(ctx context.Context, en *entry) (v RootView, release func(), err error) {
	c := en.get()
	if c.State.Status == model.StatusRemoving || c.State.Status == model.StatusDead {
		return v, nil, errs.New(errs.Conflict, "container %s is being removed", c.Name)
	}
	var u undo.Stack
	defer u.Run()
	if v.Dirs, err = e.overlay(ctx, c); err != nil {
		return v, nil, err
	}
	if t := en.running(); t != nil {
		v.Pid = t.Info().Pid
		return v, func() {}, nil
	}
	holder := "copy-" + ids.Short(ids.New())
	for _, mp := range c.Mounts {
		switch mp.Type {
		case "volume":
			vm, err := e.ports.Volumes.Mount(ctx, mp.Name, holder)
			if err != nil {
				return v, nil, errs.Wrap(err, "mount volume %q on %s", mp.Name, mp.Destination)
			}
			u.Add(func() { e.ports.Volumes.Unmount(context.WithoutCancel(ctx), mp.Name, holder) })
			mp.Source = vm.Source
		case "bind":
		default:
			continue
		}
		v.Mounts = append(v.Mounts, mp)
	}
	held := u
	u.Release()
	return v, held.Run, nil
}

// StatPath describes a path in a container.
func (e *Engine) StatPath(ctx context.Context, ref, name string) (model.PathStat, error) {
	en, v, release, err := e.viewOf(ctx, ref)
	if err != nil {
		return model.PathStat{}, err
	}
	defer release()
	st, err := e.ports.RootFS.Stat(ctx, v, rooted(name))
	return st, e.pathError(err, ref, en, name)
}

// CopyFrom gives a path of a container as a tar archive whose top is the path's base name.
func (e *Engine) CopyFrom(ctx context.Context, ref, name string) (io.ReadCloser, model.PathStat, error) {
	en, v, release, err := e.viewOf(ctx, ref)
	if err != nil {
		return nil, model.PathStat{}, err
	}
	r, st, err := e.ports.RootFS.CopyFrom(ctx, v, rooted(name))
	if err != nil {
		release()
		return nil, st, e.pathError(err, ref, en, name)
	}
	e.publish(en.get(), "archive-path", nil)
	return &heldReader{r, sync.OnceFunc(release)}, st, nil
}

// heldReader gives back what the reading needs when it is closed.
type heldReader struct {
	io.ReadCloser
	release func()
}

func (h *heldReader) Close() error {
	defer h.release()
	return h.ReadCloser.Close()
}

// CopyTo unpacks a tar archive into a directory of a container.
func (e *Engine) CopyTo(ctx context.Context, ref, name string, archive io.Reader, noOverwriteDirNonDir, copyUIDGID bool) error {
	en, v, release, err := e.viewOf(ctx, ref)
	if err != nil {
		return err
	}
	defer release()
	c := en.get()
	opts := CopyToOptions{NoOverwriteDirNonDir: noOverwriteDirNonDir}
	if copyUIDGID && c.Spec.Process.User != "" { // Docker's meaning of it: what is copied belongs to the container's user
		who, err := e.lookupUser(ctx, userDatabase{dirs: v.Dirs, pid: v.Pid}, c.Spec.Process.User, nil)
		if err != nil {
			return err
		}
		opts.Owner = &[2]uint32{who.UID, who.GID}
	}
	if c.Spec.Storage.ReadonlyRootfs {
		if !onWritableMount(c, path.Clean(rooted(name))) {
			return errs.New(errs.Forbidden, "container rootfs is marked read-only: %s of container %s is not on a volume", name, c.Name)
		}
		opts.ReadOnlyRoot = true
	}
	if err := e.ports.RootFS.CopyTo(ctx, v, rooted(name), archive, opts); err != nil {
		return e.pathError(err, ref, en, name)
	}
	e.publish(c, "extract-to-dir", nil)
	return nil
}

// onWritableMount says whether a path lies on a mount that may be written.
func onWritableMount(c *model.Container, name string) bool {
	best, rw := "", false
	for _, mp := range c.Mounts {
		if (name == mp.Destination || strings.HasPrefix(name, mp.Destination+"/")) && len(mp.Destination) > len(best) {
			best, rw = mp.Destination, mp.RW
		}
	}
	return rw
}

// rooted makes a path absolute, and keeps a slash or dot at its end, which say "must be a directory".
func rooted(name string) string {
	if !strings.HasPrefix(name, "/") {
		return "/" + name
	}
	return name
}

func (e *Engine) viewOf(ctx context.Context, ref string) (en *entry, v RootView, release func(), err error) {
	if en, err = e.find(ref); err == nil {
		v, release, err = e.rootView(ctx, en)
	}
	return en, v, release, err
}

// pathError puts Docker's words round what went wrong with a path.
func (e *Engine) pathError(err error, ref string, en *entry, name string) error {
	if errs.Is(err, errs.NotFound) {
		return errs.New(errs.NotFound, "Could not find the file %s in container %s", name, ref)
	}
	return errs.Wrap(err, "path %s in container %s", name, en.get().Name)
}

// Export writes the container's root filesystem, without what is mounted on it, as a tar archive.
func (e *Engine) Export(ctx context.Context, ref string, w io.Writer) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	c := en.get()
	if s := c.State.Status; s == model.StatusDead || s == model.StatusRemoving {
		return errs.New(errs.Conflict, "You cannot export container %s which is being removed", c.Name)
	}
	dirs, err := e.overlay(ctx, c)
	if err != nil {
		return err
	}
	if err := e.ports.RootFS.Export(ctx, RootView{Dirs: dirs}, w); err != nil {
		return errs.Wrap(err, "export container %s", c.Name)
	}
	e.publish(c, "export", nil)
	return nil
}

// Changes lists what the container changed in its root filesystem.
func (e *Engine) Changes(ctx context.Context, ref string) ([]model.Change, error) {
	en, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	dirs, err := e.overlay(ctx, en.get())
	if err != nil {
		return nil, err
	}
	changes, err := e.ports.RootFS.Changes(ctx, dirs)
	return changes, errs.Wrap(err, "changes of container %s", en.get().Name)
}

// Commit makes an image of a container. With Pause its processes stand still meanwhile, so that files match each other.
func (e *Engine) Commit(ctx context.Context, r model.CommitRequest) (string, error) {
	en, err := e.find(r.Container)
	if err != nil {
		return "", err
	}
	if err := en.enter(ctx); err != nil {
		return "", err
	}
	defer en.leave()
	c := en.get()
	if s := c.State.Status; s == model.StatusDead || s == model.StatusRemoving {
		return "", errs.New(errs.Conflict, "You cannot commit container %s which is being removed", c.Name)
	}
	dirs, err := e.overlay(ctx, c)
	if err != nil {
		return "", err
	}
	if t := en.running(); t != nil && r.Pause && c.State.Status == model.StatusRunning {
		if err := t.Freeze(ctx, true); err != nil {
			return "", errs.Wrap(err, "pause container %s while it is committed", c.Name)
		}
		defer t.Freeze(context.WithoutCancel(ctx), false)
	}
	if err := failpoint.Hit("engine/commit/paused"); err != nil {
		return "", err
	}
	commit := model.ImageCommit{
		Base: c.Image.ID, Upper: dirs.Upper, Author: r.Author, Comment: r.Comment, Changes: r.Changes,
		Config: commitConfig(c, r.Config), Platform: parsePlatform(c.Image.Platform), Command: joinArgs(append([]string{c.Runtime.Path}, c.Runtime.Args...)),
	}
	if r.Repo != "" {
		commit.Ref = r.Repo
		if r.Tag != "" {
			commit.Ref += ":" + r.Tag
		}
	}
	id, err := e.ports.Images.Commit(ctx, commit)
	if err != nil {
		return "", errs.Wrap(err, "commit container %s", c.Name)
	}
	e.publish(c, "commit", map[string]string{"imageID": id, "imageRef": commit.Ref, "comment": r.Comment})
	return id, nil
}

// commitConfig is the image configuration of a container: what it runs with, under what the request says otherwise.
func commitConfig(c *model.Container, override *model.ContainerSpec) model.ImageConfig {
	s := c.Spec
	if override != nil {
		s = *override
		base := imageConfig(&c.Spec)
		if err := merge(&s, base); err != nil {
			s = c.Spec
		}
	}
	return imageConfig(&s)
}

func imageConfig(s *model.ContainerSpec) model.ImageConfig {
	out := model.ImageConfig{
		User: s.Process.User, Env: s.Process.Env, Entrypoint: s.Process.Entrypoint, Cmd: s.Process.Cmd,
		WorkingDir: s.Process.WorkingDir, Labels: s.Labels, StopSignal: s.Stop.Signal, Healthcheck: s.Health,
		OnBuild: s.Options.OnBuild, Shell: s.Process.Shell,
	}
	for _, p := range s.Network.Exposed {
		out.ExposedPorts = append(out.ExposedPorts, p.String())
	}
	for v := range s.Storage.Volumes {
		out.Volumes = append(out.Volumes, v)
	}
	return out.Clone()
}

// parsePlatform reads "os/architecture[/variant]".
func parsePlatform(text string) model.Platform {
	parts := strings.SplitN(text, "/", 3)
	var p model.Platform
	for i, to := range []*string{&p.OS, &p.Architecture, &p.Variant} {
		if i < len(parts) {
			*to = parts[i]
		}
	}
	return p
}
