// Package spec knows what an OCI runtime configuration may say: it parses config.json, checks it with messages that name
// the field, the value and what is wanted, gives the example that `spec` prints and the document that `features`
// prints; and it holds the files that the daemon and a container's supervisor exchange. It is pure: it opens nothing
// and asks nothing of the host.
//
// # Extensions
//
// Annotations of Shoal's own, acted on by runtime/container:
//
//	dev.shoal.rootfs.overlay  JSON RootfsOverlay {"lower":["top",...],"upper":..,"work":..,"options":[..]}: init mounts
//	                          this overlay on root.path inside the container's mount namespace
package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

// MaxConfig bounds the size of config.json, in bytes.
const MaxConfig = 32 << 20

// Parse decodes config.json. Fields it does not know are ignored, as the specification demands.
func Parse(data []byte) (*specs.Spec, error) {
	if len(data) > MaxConfig {
		return nil, errs.New(errs.Invalid, "config.json has %d bytes; at most %d are read", len(data), MaxConfig)
	}
	var s specs.Spec
	if decode(data, &s) {
		return &s, nil
	}
	s = specs.Spec{}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, errs.New(errs.Invalid, "config.json is not valid: %w%s", err, place(data, err))
	}
	return &s, nil
}

// place turns a decoding error's offset into line and column.
func place(data []byte, err error) string {
	var offset int64
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &typ):
		offset = typ.Offset
	default:
		return ""
	}
	before := string(data[:min(int(offset), len(data))])
	line := strings.Count(before, "\n") + 1
	return fmt.Sprintf(" (line %d, column %d)", line, len(before)-strings.LastIndexByte(before, '\n')-1)
}

// Overlay decodes the annotation that asks for an overlay root; nil when there is none.
func Overlay(s *specs.Spec) (*RootfsOverlay, error) {
	text := s.Annotations[RootfsAnnotation]
	if text == "" {
		return nil, nil
	}
	var o RootfsOverlay
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return nil, errs.New(errs.Invalid, "annotation %s: %w", RootfsAnnotation, err)
	}
	if len(o.Lower) == 0 {
		return nil, errs.New(errs.Invalid, "annotation %s: lower names no directory", RootfsAnnotation)
	}
	if (o.Upper == "") != (o.Work == "") {
		return nil, errs.New(errs.Invalid, "annotation %s: upper and work belong together", RootfsAnnotation)
	}
	for _, dir := range append([]string{o.Upper, o.Work}, o.Lower...) {
		if dir != "" && dir[0] != '/' {
			return nil, errs.New(errs.Invalid, "annotation %s: %q is not an absolute path", RootfsAnnotation, dir)
		}
	}
	return &o, nil
}

// Namespace finds the configuration of a namespace type; nil when it is not asked for.
func Namespace(s *specs.Spec, t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	if s.Linux == nil {
		return nil
	}
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == t {
			return &s.Linux.Namespaces[i]
		}
	}
	return nil
}

// IsNew says whether a namespace of the type is to be created (not joined, not shared).
func IsNew(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	n := Namespace(s, t)
	return n != nil && n.Path == ""
}
