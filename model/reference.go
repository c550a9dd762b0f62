package model

import (
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// Defaults of names that do not say them.
const (
	DefaultDomain = "docker.io"
	DefaultTag    = "latest"

	legacyDomain   = "index.docker.io"
	officialPrefix = "library/"
	maxNameLength  = 255
	maxTagLength   = 128
)

// Reference is an image's name in full: where it lives, and which one of the versions there is meant. At least one of
// Tag and Digest is set after ParseReference. Grammar: the distribution project's "reference" (the package
// github.com/distribution/reference is the witness in the tests; it is not used here because its regular expressions
// cost every start of the command line).
type Reference struct {
	Domain string // "docker.io", "localhost:5000"
	Path   string // "library/hello"
	Tag    string // "latest", or "" when only a digest was given
	Digest string // "sha256:...", or ""
}

// ParseReference reads a name as people write it: "hello", "hello:1.2", "host:5000/team/app@sha256:...". A name with
// neither tag nor digest gets the tag "latest". Errors are errs.Invalid.
func ParseReference(s string) (Reference, error) {
	r, err := ParseRepository(s)
	if err == nil && r.Tag == "" && r.Digest == "" {
		r.Tag = DefaultTag
	}
	return r, err
}

// ParseRepository is ParseReference without the default tag: Tag and Digest stay empty when s says none.
func ParseRepository(s string) (Reference, error) {
	if isHex(s, 64) {
		return Reference{}, badReference(s, "64 hexadecimal digits are an image ID, not a name")
	}
	r, name := splitDomain(s)
	name, digest, hasDigest := strings.Cut(name, "@")
	if hasDigest {
		if !ValidDigest(digest) {
			return Reference{}, badReference(s, "what follows '@' must be a digest such as sha256: and 64 hexadecimal digits")
		}
		r.Digest = digest
	}
	name, tag, hasTag := strings.Cut(name, ":")
	if hasTag {
		if !validTag(tag) {
			return Reference{}, badReference(s, "a tag is 1 to 128 letters, digits, '_', '.' or '-', and does not start with '.' or '-'")
		}
		r.Tag = tag
	}
	r.Path = name
	if r.Domain == DefaultDomain && !strings.Contains(name, "/") {
		r.Path = officialPrefix + name
	}
	if strings.ToLower(name) != name {
		return Reference{}, badReference(s, "the repository name must be lower case")
	}
	if !validPath(name) {
		return Reference{}, badReference(s, "a repository name is made of lower-case letters and digits, separated by '/', '.', '_', '__' or dashes")
	}
	if !validDomain(r.Domain) {
		return Reference{}, badReference(s, "the part before the first '/' must be a host name with an optional port")
	}
	if len(r.Path) > maxNameLength {
		return Reference{}, badReference(s, "the repository name is longer than 255 characters")
	}
	return r, nil
}

func badReference(s, why string) error {
	return errs.New(errs.Invalid, "invalid reference format: %q: %s", s, why)
}

// String is the full name, as it is stored: "docker.io/library/hello:latest".
func (r Reference) String() string { return r.Name() + r.suffix() }

// Name is the repository in full: "docker.io/library/hello".
func (r Reference) Name() string { return r.Domain + "/" + r.Path }

// Familiar is the short form that people see: "hello:latest".
func (r Reference) Familiar() string { return r.FamiliarName() + r.suffix() }

// FamiliarName is the repository as people see it: "hello".
func (r Reference) FamiliarName() string {
	if r.Domain != DefaultDomain {
		return r.Name()
	}
	if rest, ok := strings.CutPrefix(r.Path, officialPrefix); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.Path
}

func (r Reference) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// splitDomain gives the domain and the rest of s.
func splitDomain(s string) (Reference, string) {
	first, rest, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return Reference{Domain: DefaultDomain}, s
	case first == legacyDomain:
		return Reference{Domain: DefaultDomain}, rest
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		return Reference{Domain: first}, rest
	}
	return Reference{Domain: DefaultDomain}, s
}

// ValidDigest says whether s is algorithm ":" hexadecimal digits; of the registered algorithms the length must fit.
func ValidDigest(s string) bool {
	algorithm, hex, ok := strings.Cut(s, ":")
	if !ok {
		return false
	}
	switch algorithm {
	case "sha256":
		return isHex(hex, 64)
	case "sha384":
		return isHex(hex, 96)
	case "sha512":
		return isHex(hex, 128)
	}
	return false
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

func isAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isLetterOrDigit(c byte) bool { return isAlnum(c) || c >= 'A' && c <= 'Z' }

func validTag(s string) bool {
	if s == "" || len(s) > maxTagLength || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetterOrDigit(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func validPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !validPathComponent(part) {
			return false
		}
	}
	return true
}

// validPathComponent: runs of lower-case letters and digits, between them one '.', one or two '_', or any number of '-'.
func validPathComponent(s string) bool {
	if s == "" || !isAlnum(s[0]) || !isAlnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isAlnum(s[i]) {
			i++
			continue
		}
		end := i
		for !isAlnum(s[end]) {
			end++
		}
		sep := s[i:end]
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = end
	}
	return true
}

// validDomain: a host name, an IPv4 address or a bracketed IPv6 address, and an optional port.
func validDomain(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	if strings.HasPrefix(host, "[") {
		return len(host) > 2 && strings.HasSuffix(host, "]") && strings.Trim(host[1:len(host)-1], "0123456789abcdefABCDEF:") == ""
	}
	for part := range strings.SplitSeq(host, ".") {
		if part == "" || !isLetterOrDigit(part[0]) || !isLetterOrDigit(part[len(part)-1]) {
			return false
		}
		for i := range len(part) {
			if !isLetterOrDigit(part[i]) && part[i] != '-' {
				return false
			}
		}
	}
	return true
}
