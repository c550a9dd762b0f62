//go:build kernel

package transfer

import (
	"fmt"
	"testing"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/overlay"
)

// The kernel's overlay of the layers has what the copying driver makes of them.
func TestHostileLayersByOverlay(t *testing.T) {
	tryHostileLayers(t, store.DriverOverlay, func(dirs []string) string {
		f, err := overlay.Mount(overlay.Dirs{Lower: dirs})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	})
}
