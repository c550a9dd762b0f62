package build

import (
	"strings"
	"testing"

	buildexec "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
)

func TestStepsGetWhatIsAllowed(t *testing.T) {
	for want, meta := range map[string]buildexec.Meta{
		"security.insecure is not allowed": {SecurityMode: pb.SecurityMode_INSECURE},
		"network.host is not allowed":      {NetMode: pb.NetMode_HOST},
		"device is not allowed":            {CDIDevices: []*pb.CDIDevice{{Name: "vendor.example/gpu=0"}}},
	} {
		if err := allowed(meta, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if err := allowed(meta, []string{strings.Fields(want)[0]}); err != nil {
			t.Errorf("granted: %v", err)
		}
	}
	if err := allowed(buildexec.Meta{}, nil); err != nil {
		t.Error(err)
	}
}
