package types

import (
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ManifestRequest is the body of POST /shoal/manifests/inspect.
type ManifestRequest struct {
	Ref      string               `json:"Ref"`
	Insecure bool                 `json:"Insecure,omitempty"` // certificates are not verified, plain HTTP is tried
	Auth     *registry.AuthConfig `json:"Auth,omitempty"`
}

// Manifest is its answer: a manifest or an index as the registry has it.
type Manifest struct {
	Descriptor ocispec.Descriptor `json:"Descriptor"`
	Raw        []byte             `json:"Raw"`
}

// IndexPush is the body of POST /shoal/manifests/push, which is answered by the index's descriptor.
type IndexPush struct {
	ManifestRequest
	MediaType string   `json:"MediaType"`
	Index     []byte   `json:"Index"`
	Sources   []string `json:"Sources"` // REPOSITORY@DIGEST of each manifest, in the same registry
}
