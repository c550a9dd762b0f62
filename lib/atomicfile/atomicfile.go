// Package atomicfile writes small files so that a reader, or the next start after a crash at any instruction, sees
// the old content or the new and never a part: temporary name, sync, rename, sync of the directory. It must not
// interpret what it writes.
package atomicfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const tempMark = ".tmp-"

// Durability says whether the write must survive a power cut.
type Durability bool

// Volatile is for files on tmpfs and for records whose loss in a power cut is harmless.
const (
	Durable  Durability = true
	Volatile Durability = false
)

// Write replaces path by data with the mode, through a temporary file in the same directory.
func Write(path string, data []byte, mode os.FileMode, durable Durability) error {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, "."+name+tempMark+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, reason(err))
	}
	temp := f.Name()
	err = writeAndClose(f, data, mode, durable)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("write %s: %w", path, reason(err))
	}
	if durable {
		return SyncDir(dir)
	}
	return nil
}

// reason leaves the temporary name out of an error: nobody asked for that file.
func reason(err error) error {
	var file *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &file):
		return file.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

func writeAndClose(f *os.File, data []byte, mode os.FileMode, durable Durability) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && bool(durable) {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// WriteJSON writes v as indented JSON by Write.
func WriteJSON(path string, v any, mode os.FileMode, durable Durability) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return Write(path, append(data, '\n'), mode, durable)
}

// ReadJSON reads path into v.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// SyncDir makes the names in dir survive a power cut.
func SyncDir(dir string) error {
	if dir == "" {
		dir = "."
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// IsTemp says whether name is a temporary file that a crash in Write left behind; the owner of the directory may
// remove it at start.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, tempMark)
}
