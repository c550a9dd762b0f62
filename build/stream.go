package build

import (
	"context"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc/metadata"
)

// stream stands in for the connection of a gRPC call, so that the controller's streaming calls can be made in process.
type stream struct{ ctx context.Context }

func (s stream) Context() context.Context   { return s.ctx }
func (stream) SetHeader(metadata.MD) error  { return nil }
func (stream) SendHeader(metadata.MD) error { return nil }
func (stream) SetTrailer(metadata.MD)       {}
func (stream) SendMsg(any) error            { return nil }
func (stream) RecvMsg(any) error            { return nil }

// statusStream takes what Status sends.
type statusStream struct {
	stream
	send func(*controlapi.StatusResponse) error
}

func (s statusStream) Send(r *controlapi.StatusResponse) error { return s.send(r) }

// SendMsg is what the controller really calls.
func (s statusStream) SendMsg(m any) error {
	if r, ok := m.(*controlapi.StatusResponse); ok {
		return s.send(r)
	}
	return nil
}

// pruneStream takes what Prune sends.
type pruneStream struct {
	stream
	send func(*controlapi.UsageRecord)
}

func (s pruneStream) Send(u *controlapi.UsageRecord) error {
	s.send(u)
	return nil
}
