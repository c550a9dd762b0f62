package buildclient

import (
	"encoding/json"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
)

// layoutDigest finds an image in an OCI layout by its tag; without a tag there must be one only.
func layoutDigest(dir, tag string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return "", errs.Wrap(err, "%s is not an OCI layout", dir)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return "", errs.New(errs.Invalid, "%s/index.json: %w", dir, err)
	}
	for _, m := range index.Manifests {
		if tag != "" && m.Annotations[ocispec.AnnotationRefName] == tag || tag == "" && len(index.Manifests) == 1 {
			return m.Digest.String(), nil
		}
	}
	return "", errs.New(errs.NotFound, "the OCI layout %s has %d images and none with the tag %q; write oci-layout://%s:TAG or @DIGEST", dir, len(index.Manifests), tag, dir)
}
