package node

import (
	"encoding/json"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
)

// maxManifestRequest bounds a request: an index of 4 MB in base64, and credentials.
const maxManifestRequest = 8 << 20

func decodeManifests(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxManifestRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	return nil
}

// serveManifest answers POST /shoal/manifests/inspect, a types.ManifestRequest, with a types.Manifest.
func (n *Node) serveManifest(w http.ResponseWriter, r *http.Request) error {
	var in types.ManifestRequest
	if err := decodeManifests(w, r, &in); err != nil {
		return err
	}
	m, err := n.registryClient().Manifest(r.Context(), in.Ref, in.Auth, in.Insecure)
	if err != nil {
		return err
	}
	return answer(w, types.Manifest{Descriptor: m.Descriptor, Raw: m.Raw})
}

// serveIndexPush answers POST /shoal/manifests/push, a types.IndexPush, with the index's descriptor.
func (n *Node) serveIndexPush(w http.ResponseWriter, r *http.Request) error {
	var in types.IndexPush
	if err := decodeManifests(w, r, &in); err != nil {
		return err
	}
	d, err := n.registryClient().PushIndex(r.Context(), in.Ref, in.MediaType, in.Index, in.Sources, in.Auth, in.Insecure)
	if err != nil {
		return err
	}
	return answer(w, ocispec.Descriptor{MediaType: in.MediaType, Digest: d, Size: int64(len(in.Index))})
}
