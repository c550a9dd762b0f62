package store

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// setAsideDamage looks at the databases before they are opened, because a cut-off one kills whoever maps it into memory.
// One that is damaged or gone is set aside together with the layers, which are worth nothing without it: an empty store
// that takes images again is better than none. Containers that run keep their layers, which are renamed, not removed.
func setAsideDamage(root string, log *slog.Logger) error {
	layers := filepath.Join(root, "snapshots")
	databases, err := filepath.Glob(filepath.Join(layers, "*", "metadata.db"))
	if err != nil || len(databases) == 0 {
		if reason := checkDatabase(metadataPath(root)); reason == nil || errors.Is(reason, fs.ErrNotExist) {
			return nil // new, or without layers
		}
	}
	var reason error
	var which string
	for _, path := range append(databases, metadataPath(root)) {
		if reason = checkDatabase(path); reason != nil {
			which = path
			break
		}
	}
	if reason == nil {
		return nil
	}
	mark := ".damaged-" + time.Now().UTC().Format("20060102T150405")
	var moved []string
	for _, path := range []string{metadataPath(root), layers} {
		err := os.Rename(path, path+mark)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Damaged, "%s is damaged (%w) and cannot be set aside: %w", which, reason, err)
		}
		if err == nil {
			moved = append(moved, path+mark)
		}
	}
	log.Error("the record of the images is damaged and was set aside: load or pull the images again; running containers go on; remove what was set aside when none of them is left",
		"file", which, "reason", reason, "setAside", moved)
	return nil
}

// A bolt database begins with two pages that describe it; the newer valid one counts.
const (
	boltMagic   = 0xED0CDAED
	boltMetaAt  = 16 // after the page's header
	boltMetaLen = 64
)

// checkDatabase says what is wrong with a bolt database as a whole: no valid description, or cut off. An empty file is
// damage here, since a database that was ever used is not empty.
func checkDatabase(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("it is not a file")
	}
	var newest, pages, pageSize uint64
	found := false
	for _, at := range []int64{0, int64(os.Getpagesize())} {
		meta := make([]byte, boltMetaLen)
		if _, err := f.ReadAt(meta, at+boltMetaAt); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			return err
		}
		sum := fnv.New64a()
		sum.Write(meta[:56])
		e := binary.NativeEndian
		if e.Uint32(meta) != boltMagic || e.Uint64(meta[56:]) != sum.Sum64() {
			continue
		}
		if tx := e.Uint64(meta[48:]); !found || tx >= newest {
			found, newest, pageSize, pages = true, tx, uint64(e.Uint32(meta[8:])), e.Uint64(meta[40:])
		}
	}
	switch {
	case !found:
		return errors.New("it does not begin as a database does")
	case uint64(st.Size()) < pages*pageSize:
		return errors.New("it is cut off")
	}
	return nil
}
