package build

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// maxMessage bounds one message of a client: a build graph with a large Dockerfile is some megabytes.
const maxMessage = 16 << 20

func newServer(ctl *control.Controller, refused *refusals) *grpc.Server {
	s := grpc.NewServer(grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, refused.unary),
		grpc.ChainStreamInterceptor(grpcerrors.StreamServerInterceptor, refused.stream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	ctl.Register(s)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return s
}

// GRPC serves BuildKit's API on a connection until it is closed.
func (b *Builder) GRPC(ctx context.Context, conn net.Conn) error {
	eng, err := b.engine(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(b.ended, cancel)
	defer stop()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	h2 := &http2.Server{}
	// Clients that leave in the middle are no trouble of the daemon's.
	quiet := &http.Server{ErrorLog: slog.NewLogLogger(b.cfg.Log.Handler(), slog.LevelDebug)}
	h2.ServeConn(conn, &http2.ServeConnOpts{Context: ctx, Handler: http.HandlerFunc(eng.server.ServeHTTP), BaseConfig: quiet})
	return nil
}
