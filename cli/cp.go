package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/go-archive"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	units "github.com/docker/go-units"
	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/progress"
	"github.com/shoalhq/shoal/lib/errs"
)

type cpFlags struct {
	archive, follow, quiet bool
}

func cpCommand(a *App) *cobra.Command {
	var c cpFlags
	cmd := a.command("cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tshoal cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", count(2, 2),
		func(ctx context.Context, _ *client.Client, args []string) error {
			if args[0] == "" || args[1] == "" {
				return badFlag("source and destination may not be empty")
			}
			ctx, stop := interruptible(ctx)
			defer stop()
			from, src := splitContainerPath(args[0])
			to, dst := splitContainerPath(args[1])
			switch {
			case from != "" && to != "":
				return errs.New(errs.Unsupported, "copying between containers is not supported: copy to this machine first, or pipe \"shoal cp %s -\" into \"shoal cp - %s\"", args[0], args[1])
			case from != "":
				return c.fromContainer(ctx, a, from, src, dst)
			case to != "":
				return c.toContainer(ctx, a, src, to, dst)
			}
			return badFlag("must specify at least one container source: write CONTAINER:PATH on one side")
		})
	cmd.Long = "Copy files/folders between a container and the local filesystem\n\n" +
		"Use '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\n" +
		"Use '-' as the destination to stream a tar archive of a\ncontainer source to stdout."
	fs := cmd.Flags()
	fs.BoolVarP(&c.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&c.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return cmd
}

// splitContainerPath splits CONTAINER:PATH. A name with a slash or a leading dot before the colon is a local path, so
// that ./a:b can be copied.
func splitContainerPath(arg string) (container, p string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	name, p, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(name, ".") || strings.Contains(name, "/") {
		return "", arg
	}
	return name, p
}

// copied says what has been done, as cp does on a terminal.
func (c *cpFlags) copied(a *App, n int64, where string) {
	if !c.quiet && terminalOf(a.Err) != nil {
		fmt.Fprintf(a.Err, "Successfully copied %s to %s\n", units.HumanSizeWithPrecision(float64(n), 3), where)
	}
}

func (c *cpFlags) screen(a *App) progress.Screen {
	s := a.screen(a.Err)
	if c.quiet {
		s.Width = 0
	}
	return s
}

func (c *cpFlags) fromContainer(ctx context.Context, a *App, name, src, dst string) error {
	api := a.client
	if dst != "-" {
		var err error
		if dst, err = absolute(dst); err != nil {
			return err
		}
	}
	if err := checkParent(dst); err != nil {
		return err
	}
	info := archive.CopyInfo{Path: src}
	if c.follow {
		st, err := api.ContainerStatPath(ctx, name, moby.ContainerStatPathOptions{Path: src})
		if err == nil && st.Stat.Mode&os.ModeSymlink != 0 {
			target := st.Stat.LinkTarget
			if !path.IsAbs(target) {
				target = path.Join(path.Dir(src), target)
			}
			// The name that the caller gave is the one that the copy gets.
			info.Path, info.RebaseName = archive.GetRebaseName(src, target)
		}
	}
	res, err := api.CopyFromContainer(ctx, name, moby.CopyFromContainerOptions{SourcePath: info.Path})
	if err != nil {
		return err
	}
	defer res.Content.Close()
	if dst == "-" {
		if terminalOf(a.Out) != nil {
			return errs.New(errs.Invalid, "refusing to write a tar archive to a terminal: redirect it, or name a file")
		}
		_, err := io.Copy(a.Out, res.Content)
		return err
	}
	info.Exists, info.IsDir = true, res.Stat.Mode.IsDir()
	bar := progress.NewBytes(c.screen(a), "Copying from container", 0, time.Now)
	content := bar.Reader(res.Content)
	if info.RebaseName != "" {
		content = archive.RebaseArchiveEntries(content, path.Base(info.Path), info.RebaseName)
	}
	err = archive.CopyTo(content, info, dst)
	bar.Done()
	if err != nil {
		return err
	}
	c.copied(a, bar.Total(), dst)
	return nil
}

func (c *cpFlags) toContainer(ctx context.Context, a *App, src, name, dst string) error {
	api := a.client
	// Where the destination is a link, the copy goes to what it points at.
	dstInfo := archive.CopyInfo{Path: dst}
	st, err := api.ContainerStatPath(ctx, name, moby.ContainerStatPathOptions{Path: dst})
	if err == nil && st.Stat.Mode&os.ModeSymlink != 0 {
		target := st.Stat.LinkTarget
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(dst), target)
		}
		dstInfo.Path = target
		st, err = api.ContainerStatPath(ctx, name, moby.ContainerStatPathOptions{Path: target})
	}
	switch {
	case err == nil:
		dstInfo.Exists, dstInfo.IsDir = true, st.Stat.Mode.IsDir()
	case !errdefs.IsNotFound(err) || strings.Contains(err.Error(), "No such container"):
		return err
	}
	o := moby.CopyToContainerOptions{CopyUIDGID: c.archive}
	bar := progress.NewBytes(c.screen(a), "Copying to container", 0, time.Now)
	if src == "-" {
		if dstInfo.Exists && !dstInfo.IsDir {
			return badFlag("destination %q must be a directory, because standard input is an archive", name+":"+dst)
		}
		o.DestinationPath, o.Content = dstInfo.Path, a.In
	} else {
		content, dir, err := c.pack(src, dstInfo)
		if err != nil {
			return err
		}
		defer content.Close()
		o.DestinationPath, o.Content = dir, bar.Reader(content)
	}
	_, err = api.CopyToContainer(ctx, name, o)
	bar.Done()
	if err != nil {
		return err
	}
	c.copied(a, bar.Total(), name+":"+dstInfo.Path)
	return nil
}

// pack makes the archive of a local path under the name that the destination gives it, and the directory to unpack it in.
func (c *cpFlags) pack(src string, dst archive.CopyInfo) (io.ReadCloser, string, error) {
	abs, err := absolute(src)
	if err != nil {
		return nil, "", err
	}
	info, err := archive.CopyInfoSourcePath(abs, c.follow)
	if err != nil {
		return nil, "", err
	}
	tar, err := archive.TarResource(info)
	if err != nil {
		return nil, "", err
	}
	dir, content, err := archive.PrepareArchiveCopy(tar, info, dst)
	if err != nil {
		tar.Close()
		return nil, "", err
	}
	return &joined{content, tar}, dir, nil
}

// joined closes the archive that another reader is made from, too.
type joined struct {
	io.ReadCloser
	under io.Closer
}

func (j *joined) Close() error {
	err := j.ReadCloser.Close()
	j.under.Close()
	return err
}

// absolute makes a path absolute and keeps what its end says: "dir/" and "dir/." mean the directory itself.
func absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	return archive.PreserveTrailingDotOrSeparator(abs, p), nil
}

// checkParent sees that there is a directory for the destination before the container is asked for its content.
func checkParent(dst string) error {
	if dst == "-" {
		return nil
	}
	dir := filepath.Dir(strings.TrimRight(dst, "/"))
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return errs.New(errs.NotFound, "invalid output path: directory %q does not exist; make it first", dir)
	}
	return nil
}
