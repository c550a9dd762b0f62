package build

import (
	"context"

	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"

	"github.com/shoalhq/shoal/model"
)

// credentials answers the question for a registry's credentials with those that came with a request. Tokens are fetched by
// the daemon itself, with these.
type credentials map[string]model.BuildAuth

// hubKey is how clients name Docker Hub among their credentials.
const hubKey = "https://index.docker.io/v1/"

// credentialServer leaves the rest of the service out, which BuildKit understands.
type credentialServer struct {
	auth.UnimplementedAuthServer
	credentials
}

// Register makes it part of a session.
func (c credentials) Register(s *grpc.Server) {
	auth.RegisterAuthServer(s, credentialServer{credentials: c})
}

// Credentials gives those of the host only.
func (c credentialServer) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	a, ok := c.credentials[r.Host]
	if !ok && (r.Host == "registry-1.docker.io" || r.Host == "docker.io") {
		a, ok = c.credentials[hubKey]
	}
	if !ok {
		a = c.credentials["https://"+r.Host]
	}
	if a.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: a.Username, Secret: a.Password}, nil
}
