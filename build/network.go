package build

import (
	"context"
	"os"
	"strconv"

	resources "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

// Networks gives build steps their network. Join makes a namespace on the default network for the step with the given
// ID; what it returns is given back with Leave, also when the step never ran. Files makes /etc/hosts and /etc/resolv.conf
// for a step on the default network (joined) or on the host's. HostGateway is the address of the host in the default
// network, "" when there is none.
type Networks interface {
	Join(ctx context.Context, id, hostname string) (Joined, error)
	Leave(ctx context.Context, j Joined) error
	HostGateway(ctx context.Context) string
	Files(j Joined, host bool, hostname string, extra []string) (hosts, resolvConf []byte, err error)
}

// Joined is a step's place on the network.
type Joined struct {
	ID        string
	Namespace *os.File // nil: the step shares the host's, or has none
	State     any      // of the adapter
}

// join gives the step its network.
func (e *executor) join(ctx context.Context, id, hostname string, mode pb.NetMode) (Joined, error) {
	switch mode {
	case pb.NetMode_UNSET:
		return e.cfg.Networks.Join(ctx, id, hostname)
	case pb.NetMode_HOST, pb.NetMode_NONE:
		return Joined{ID: id}, nil
	}
	return Joined{}, errs.New(errs.Invalid, "build step: unknown network mode %s: use default, none or host", mode)
}

// netNamespace is BuildKit's view of a step's network: it puts the namespace into the configuration.
type netNamespace struct {
	joined Joined
	mode   pb.NetMode
}

func (n netNamespace) Set(s *specs.Spec) error {
	spaces := s.Linux.Namespaces[:0]
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			spaces = append(spaces, ns)
		}
	}
	if n.mode != pb.NetMode_HOST {
		own := specs.LinuxNamespace{Type: specs.NetworkNamespace}
		if f := n.joined.Namespace; f != nil {
			own.Path = "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
		}
		spaces = append(spaces, own)
	}
	s.Linux.Namespaces = spaces
	return nil
}

// stepNetwork is BuildKit's interface; closing is done by the executor.
type stepNetwork struct{ netNamespace }

func (stepNetwork) Close() error                              { return nil }
func (stepNetwork) Sample() (*resources.NetworkSample, error) { return nil, nil }
