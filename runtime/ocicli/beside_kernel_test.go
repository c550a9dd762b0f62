//go:build kernel

package ocicli

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKernelRunBesideCrun measures `run` of the same bundle by crun and by this runtime, turn by turn, where crun works (it does not
// with control groups of version 1 and 2 at once). It only tells: how fast a machine is, is no defect.
func TestKernelRunBesideCrun(t *testing.T) {
	crun, err := exec.LookPath("crun")
	if err != nil {
		t.Skip("no crun")
	}
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skip("crun does not run on this host: its control groups are not version 2 only")
	}
	b := newBundle(t)
	b.spec.Version = "1.0.2" // crun 1.8 refuses newer ones
	b.write()
	took := map[string][]time.Duration{}
	for i := range 22 {
		for _, program := range []string{binary, crun} {
			start := time.Now()
			out, err := exec.Command(program, "--root", b.root+"-"+program[len(program)-4:], "run", "--bundle", b.dir, fmt.Sprintf("%s-%d", b.id, i)).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", program, err, out)
			}
			if i > 0 { // the first finds cold caches
				took[program] = append(took[program], time.Since(start))
			}
		}
	}
	median := func(program string) time.Duration {
		slices.Sort(took[program])
		return took[program][len(took[program])/2]
	}
	ours, theirs := median(binary), median(crun)
	t.Logf("medians of 21: shoal-runtime %v, crun %v: ratio %.2f", ours.Round(10*time.Microsecond), theirs.Round(10*time.Microsecond), float64(ours)/float64(theirs))
}
