package build

import (
	"context"
	"strings"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/buildid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/shoalhq/shoal/lib/errs"
)

// refusals end what waits for builds that were refused before they began (an output that does not exist, a right that is not
// given). BuildKit's Status waits six seconds for the build to appear and a front end's call three, and its clients wait for them.
type refusals struct {
	mu     sync.Mutex
	builds map[string]*refusal // by the client's reference
}

type refusal struct {
	failed chan struct{} // closed when Solve has failed
	users  int
}

const (
	failureKept = 10 * time.Second       // a Status may come after the Solve that it belongs to
	lastWords   = 100 * time.Millisecond // what a Status has to begin in when its build has failed
)

func (r *refusals) hold(ref string) *refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.builds == nil {
		r.builds = map[string]*refusal{}
	}
	b := r.builds[ref]
	if b == nil {
		b = &refusal{failed: make(chan struct{})}
		r.builds[ref] = b
	}
	b.users++
	return b
}

func (r *refusals) release(ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.builds[ref]; b.users > 1 {
		b.users--
	} else {
		delete(r.builds, ref)
	}
}

// solved notes how a Solve ended.
func (r *refusals) solved(ref string, err error) {
	if err == nil {
		return
	}
	b := r.hold(ref)
	r.mu.Lock()
	select {
	case <-b.failed:
	default:
		close(b.failed)
	}
	r.mu.Unlock()
	time.AfterFunc(failureKept, func() { r.release(ref) })
}

// status runs a Status; one that has said nothing when its build has failed is ended. Without a reference it is what the
// client asks for.
func (r *refusals) status(ss grpc.ServerStream, ref string, run func(controlapi.Control_StatusServer) error) error {
	s := &statusCall{ServerStream: ss, asked: make(chan string, 1)}
	if ref != "" {
		s.asked <- ref
	}
	done := make(chan error, 1)
	go func() { done <- run(s) }()
	select {
	case err := <-done:
		return err
	case ref := <-s.asked:
		b := r.hold(ref)
		defer r.release(ref)
		select {
		case err := <-done:
			return err
		case <-b.failed:
		}
	}
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	if s.end() {
		return nil
	}
	return <-done
}

// unary and stream put refusals between a gRPC server and BuildKit's controller.
func (r *refusals) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if ref := buildid.FromIncomingContext(ctx); ref != "" { // a front end in the client: it waits for its build, too
		b := r.hold(ref)
		defer r.release(ref)
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-b.failed:
				cancel()
			case <-inner.Done():
			}
		}()
		ctx = inner
	}
	resp, err := next(ctx, req)
	if solve, ok := req.(*controlapi.SolveRequest); ok {
		r.solved(solve.Ref, err)
		err = hintAtPolicy(err)
	}
	return resp, err
}

// hintAtPolicy tells who can give a right that BuildKit says is not given.
func hintAtPolicy(err error) error {
	if err == nil || !strings.Contains(err.Error(), "is not allowed by build daemon configuration") {
		return err
	}
	return errs.New(errs.Forbidden, "%w: an administrator allows it with builder.entitlements in daemon.json", err)
}

func (r *refusals) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if info.FullMethod != controlapi.Control_Status_FullMethodName {
		return next(srv, ss)
	}
	return r.status(ss, "", func(s controlapi.Control_StatusServer) error { return next(srv, s) })
}

// statusCall is the stream of a Status, which may be taken from it before it has said anything.
type statusCall struct {
	grpc.ServerStream
	asked chan string // the build's reference

	mu   sync.Mutex
	sent bool
	over bool
}

var errOver = errs.New(errs.NotFound, "the build has ended")

func (s *statusCall) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if req, ok := m.(*controlapi.StatusRequest); ok && err == nil {
		s.asked <- req.Ref
	}
	return err
}

func (s *statusCall) Send(m *controlapi.StatusResponse) error { return s.SendMsg(m) }

func (s *statusCall) SendMsg(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errOver
	}
	s.sent = true
	return s.ServerStream.SendMsg(m)
}

func (s *statusCall) SendHeader(md metadata.MD) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errOver
	}
	return s.ServerStream.SendHeader(md)
}

// end takes the stream from a call that has sent nothing.
func (s *statusCall) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = !s.sent
	return s.over
}
