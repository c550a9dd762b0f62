package build

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/buildid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// clientStream is a Status that a client asked for.
type clientStream struct {
	stream
	sent *[]any
}

func (c clientStream) SendMsg(m any) error { *c.sent = append(*c.sent, m); return nil }

func (c clientStream) RecvMsg(m any) error {
	m.(*controlapi.StatusRequest).Ref = "ref"
	return nil
}

var statusInfo = &grpc.StreamServerInfo{FullMethod: controlapi.Control_Status_FullMethodName}

// What waits for a build that was refused before it began is ended with it, whichever of the two came first.
func TestRefusedBuildsEndTheirStatus(t *testing.T) {
	for _, name := range []string{"the status first", "the refusal first"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &refusals{}
				refuse := func() {
					_, err := r.unary(t.Context(), &controlapi.SolveRequest{Ref: "ref"}, nil, func(context.Context, any) (any, error) { return nil, errors.New("no such output") })
					if err == nil {
						t.Error("the refusal is lost")
					}
				}
				waits := func(_ any, ss grpc.ServerStream) error { // as BuildKit's Status does
					var req controlapi.StatusRequest
					if err := ss.RecvMsg(&req); err != nil {
						return err
					}
					<-time.After(6 * time.Second)
					if err := ss.SendMsg(&controlapi.StatusResponse{}); err == nil {
						t.Error("sent on a stream that is over")
					}
					return errors.New("no such job")
				}
				if name == "the refusal first" {
					refuse()
				} else {
					time.AfterFunc(time.Second, refuse)
				}
				start := time.Now()
				var sent []any
				if err := r.stream(nil, clientStream{stream{t.Context()}, &sent}, statusInfo, waits); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took > time.Second+lastWords {
					t.Errorf("the status ended after %v", took)
				}
				<-time.After(time.Minute)
				if len(r.builds) != 0 || len(sent) != 0 {
					t.Errorf("left: %v; sent: %v", r.builds, sent)
				}
			})
		})
	}
}

// A status that has begun is told to its end, also of a build that failed.
func TestStatusOfFailedBuildIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &refusals{}
		var sent []any
		err := r.stream(nil, clientStream{stream{t.Context()}, &sent}, statusInfo, func(_ any, ss grpc.ServerStream) error {
			ss.RecvMsg(&controlapi.StatusRequest{})
			ss.SendMsg(&controlapi.StatusResponse{})
			r.solved("ref", errors.New("step failed"))
			<-time.After(time.Second)
			ss.SendMsg(&controlapi.StatusResponse{})
			return nil
		})
		if err != nil || len(sent) != 2 {
			t.Errorf("%v, %d of 2 messages", err, len(sent))
		}
		<-time.After(time.Minute)
	})
}

// A front end in the client waits for its build, and gives up with it.
func TestRefusedBuildsEndTheirFrontend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &refusals{}
		out, _ := metadata.FromOutgoingContext(buildid.AppendToOutgoingContext(t.Context(), "ref"))
		ctx := metadata.NewIncomingContext(t.Context(), out)
		time.AfterFunc(time.Second, func() { r.solved("ref", errors.New("no such output")) })
		_, err := r.unary(ctx, nil, nil, func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-time.After(time.Minute)
	})
}
