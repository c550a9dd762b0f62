package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/shoalhq/shoal/lib/atomicfile"
)

// cleanliness knows whether the power can have gone away while the store was written to. Before the first write of a
// process the file "dirty" gets the boot's ID; the end of the process takes it away. One that is found with the ID of
// another boot means that the machine went down in between: the whole store is to be verified, and the file stays as it
// is until that is done without anything left to mend. The death of the daemon alone harms nothing: what it wrote is in
// the kernel's hands.
type cleanliness struct {
	path string
	boot string
	once sync.Once
	err  error
}

func newCleanliness(root string) *cleanliness {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return &cleanliness{path: filepath.Join(root, "dirty"), boot: strings.TrimSpace(string(boot))}
}

// unclean says whether the machine went down while the store was in use.
func (c *cleanliness) unclean() bool {
	data, err := os.ReadFile(c.path)
	return err == nil && string(bytes.TrimSpace(data)) != c.boot
}

// touch is called before everything that is written; only the first call costs anything.
func (c *cleanliness) touch() error {
	c.once.Do(func() {
		if _, err := os.Lstat(c.path); err == nil {
			return // of this boot already, or of the one to be verified
		}
		c.err = atomicfile.Write(c.path, []byte(c.boot+"\n"), 0o600, atomicfile.Durable)
	})
	return c.err
}

// verified says that nothing is left to mend. The process may have written, or still write.
func (c *cleanliness) verified() error {
	return atomicfile.Write(c.path, []byte(c.boot+"\n"), 0o600, atomicfile.Durable)
}

// end is called when nothing is written any more.
func (c *cleanliness) end() {
	if !c.unclean() {
		os.Remove(c.path)
	}
}
