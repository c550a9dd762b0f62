package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Directories below ExecRoot that no step can have as its name: where the runtime keeps its containers, what BuildKit
// mounts for several users, and its temporary files (secrets of running steps are among them).
const (
	runtimeDir = ".runtime"
	mountsDir  = ".mounts"
	tempDir    = ".tmp"
)

// killTimeout is how long the runtime may take to end a step.
const killTimeout = 20 * time.Second

// killStep ends the processes of a step and removes what the runtime keeps of it; that there is none is no error.
func killStep(cfg Config, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, cfg.Runtime, "--root", filepath.Join(cfg.ExecRoot, runtimeDir), "delete", "--force", id).CombinedOutput()
	if err != nil {
		return errs.New(errs.Internal, "end build step %s: %w: %s", id, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// clearSteps removes what steps of a daemon that died have left: processes, mounts, directories. Their links go with the
// network room's own audit. Where no build ever ran it costs one look at a directory.
func clearSteps(cfg Config) error {
	containers, err := os.ReadDir(filepath.Join(cfg.ExecRoot, runtimeDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var all []error
	for _, c := range containers {
		if err := killStep(cfg, c.Name()); err != nil {
			all = append(all, err)
		}
	}
	entries, err := os.ReadDir(cfg.ExecRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errors.Join(append(all, err)...)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(cfg.ExecRoot))
	if err != nil {
		return errors.Join(append(all, err)...)
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			all = append(all, errs.Wrap(err, "unmount %s of a build step", m.Mountpoint))
		}
	}
	if len(all) > 0 {
		return errors.Join(all...) // removing files now could remove what is mounted or in use
	}
	for _, e := range entries {
		all = append(all, os.RemoveAll(filepath.Join(cfg.ExecRoot, e.Name())))
	}
	return errors.Join(all...)
}
