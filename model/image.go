package model

import (
	"slices"
	"strings"
	"time"
)

// Image is one image as it can be run: one platform of what a name points to. Times are UTC.
type Image struct {
	ID          string     // digest of the config: "sha256:..."
	Target      Descriptor // of what the names point to: a manifest, or an index of several platforms
	Manifest    Descriptor // of this platform's manifest
	RepoTags    []string   // familiar names with tag, sorted
	RepoDigests []string   // familiar repository@Target, sorted; of images that came from or went to a registry, or were asked for by digest
	Platform    Platform
	Size        int64 // bytes: the unpacked layers, or what the content says of them while they are not unpacked
	Created     time.Time
	Origin      ImageOrigin
	Config      ImageConfig
	DiffIDs     []string // of the layers, base first; digests of the uncompressed archives
	History     []ImageHistory
}

// Descriptor names a document of the content store.
type Descriptor struct {
	MediaType string
	Digest    string // "sha256:..."
	Size      int64
}

// Dangling says whether no tag points to the image. A digest that a registry knows it by is no tag: what a newer pull of
// the same tag leaves behind is dangling.
func (i Image) Dangling() bool { return len(i.RepoTags) == 0 }

// Platform is what an image runs on.
type Platform struct {
	OS           string
	Architecture string
	Variant      string
	OSVersion    string
	OSFeatures   []string
}

// String is "os/architecture[/variant]".
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// ImageOrigin is how the image came to be here.
type ImageOrigin struct {
	Author     string
	Comment    string
	Parent     string    // ID of the image it was committed from, when recorded
	LastTagged time.Time // when a name was last given to it here
}

// ImageConfig is what a container of the image gets unless it says otherwise.
type ImageConfig struct {
	User         string
	ExposedPorts []string // "80/tcp", sorted
	Env          []string // NAME=value
	Entrypoint   []string
	Cmd          []string
	Volumes      []string // mount points, sorted
	WorkingDir   string
	Labels       map[string]string
	StopSignal   string
	Healthcheck  *Healthcheck
	OnBuild      []string
	Shell        []string
}

// ImageHistory is one step in which the image was made, oldest first.
type ImageHistory struct {
	Created    time.Time
	CreatedBy  string
	Author     string
	Comment    string
	EmptyLayer bool   // the step changed only the config
	Layer      string // diff ID of the step's layer; "" with EmptyLayer
	Size       int64  // bytes of the step's layer, unpacked when known
}

// ImageSummary is an image in a list.
type ImageSummary struct {
	Image
	SharedSize int64 // bytes of layers that other images have too; -1 when not asked for
	Containers int   // how many containers are made from it; -1 when not asked for
	Manifests  []ImageManifest
}

// Kinds of manifests.
const (
	ManifestImage       = "image"
	ManifestAttestation = "attestation"
	ManifestUnknown     = "unknown"
)

// ImageManifest is one of the manifests that a name holds.
type ImageManifest struct {
	Digest     string
	MediaType  string
	Bytes      int64 // of the manifest itself
	Kind       string
	Available  bool  // all of it is here
	Content    int64 // bytes of its blobs that are here
	Unpacked   int64
	Platform   Platform // of an image
	Containers []string // made from it
	For        string   // of an attestation: the manifest that it is about
}

// ImageUsage is what the image store takes on disk, in bytes.
type ImageUsage struct {
	Images       []ImageSummary
	LayersSize   int64 // unpacked layers, each counted once
	ContentSize  int64 // the compressed or packed blobs, each counted once
	Reclaimable  int64 // what is not an image that a container uses, packed and unpacked
	ActiveImages int   // images that a container uses
}

// ImageDeletion is one thing that removing an image did; one of the two is set.
type ImageDeletion struct {
	Untagged string // familiar name
	Deleted  string // image ID or layer digest
}

// ImageRemoveOptions are the choices about removing an image.
type ImageRemoveOptions struct {
	Force     bool
	Platforms []string // of these alone, of an image of several
	NoPrune   bool     // keep untagged parents; they do not exist here as images of their own, so it changes nothing
}

// ImagePruneReport says what a prune took away.
type ImagePruneReport struct {
	Deleted   []ImageDeletion
	Reclaimed int64 // bytes
}

// ImageCommit is an image to be made of a container's changes.
type ImageCommit struct {
	Ref      string // name to give; "" gives none
	Base     string // image ID; "" for a container without image
	Upper    string // directory of the writable layer as overlay writes it; "" is no change
	Author   string
	Comment  string
	Config   ImageConfig // the container's effective one
	Changes  []string    // Dockerfile instructions applied on top: "CMD [\"sh\"]", "ENV A=b"
	Platform Platform    // of the image when Base is ""
	Command  string      // for the history: what the container ran
}

// ImageImport is an image to be made of a root filesystem archive.
type ImageImport struct {
	Ref      string
	Message  string
	Changes  []string
	Platform Platform // zero fields mean this host's
}

// ImageProgress tells how far a load, pull or push is. ID names the layer or image; Total is 0 when unknown.
type ImageProgress struct {
	ID      string
	Action  string // "Loading layer", "Extracting", "Loaded image: hello:latest"
	Current int64
	Total   int64
	Pushed  *PushedImage // set instead of Action when a tag was pushed
}

// PushedImage is a tag that a registry has now.
type PushedImage struct {
	Tag    string
	Digest string
	Size   int64 // bytes of the manifest
}

// Getenv gives the value of a variable of the config.
func (c ImageConfig) Getenv(name string) (string, bool) {
	for _, entry := range slices.Backward(c.Env) {
		if n, v, ok := strings.Cut(entry, "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// Clone copies everything that the config refers to, so that either may be changed.
func (c ImageConfig) Clone() ImageConfig {
	for _, list := range []*[]string{&c.ExposedPorts, &c.Env, &c.Entrypoint, &c.Cmd, &c.Volumes, &c.OnBuild, &c.Shell} {
		*list = slices.Clone(*list)
	}
	if c.Labels != nil {
		labels := make(map[string]string, len(c.Labels))
		for k, v := range c.Labels {
			labels[k] = v
		}
		c.Labels = labels
	}
	if c.Healthcheck != nil {
		h := *c.Healthcheck
		h.Test = slices.Clone(h.Test)
		c.Healthcheck = &h
	}
	return c
}
