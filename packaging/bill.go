package packaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	spdxID    = regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	namespace = regexp.MustCompile(`^https://[^\s#]+$`)
	creator   = regexp.MustCompile(`^(Person|Organization|Tool): \S.*$`)
	purl      = regexp.MustCompile(`^pkg:golang/[a-z0-9._~/-]+@[A-Za-z0-9._~%-]+$`)
	digests   = map[string]int{"SHA1": 40, "SHA256": 64}
)

// CheckSBOM tells what of a bill of materials is not as SPDX 2.3 has it: the fields that its JSON schema demands, the
// grammar of their values, and that each relationship joins two elements that are there. Fields and values that the
// standard knows but SBOM does not write are found as wrong.
func CheckSBOM(text []byte) (*spdxDocument, error) {
	var doc spdxDocument
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	var wrong []error
	demand := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf("bill of materials: "+format, args...))
		}
	}
	demand(doc.Version == "SPDX-2.3" && doc.Licence == "CC0-1.0" && doc.ID == "SPDXRef-DOCUMENT" && doc.Name != "", "head %q %q %q %q", doc.Version, doc.Licence, doc.ID, doc.Name)
	demand(namespace.MatchString(doc.Namespace), "namespace %q", doc.Namespace)
	at, err := time.Parse("2006-01-02T15:04:05Z", doc.Creation.Created)
	demand(err == nil && at.Year() > 1969, "created %q", doc.Creation.Created)
	demand(len(doc.Creation.Creators) > 0 && !slices.ContainsFunc(doc.Creation.Creators, func(s string) bool { return !creator.MatchString(s) }), "creators %q", doc.Creation.Creators)
	ids := map[string]bool{doc.ID: true}
	name := func(id string) {
		demand(spdxID.MatchString(id) && !ids[id], "identifier %q is none or there twice", id)
		ids[id] = true
	}
	sums := map[string]string{}
	for _, f := range doc.Files {
		name(f.ID)
		demand(strings.HasPrefix(f.Name, "./"), "file %q is not relative to the package", f.Name)
		demand(licence(f.Licence) && f.Copyright != "" && len(f.InFile) > 0, "file %q: licence %q %q, copyright %q", f.Name, f.Licence, f.InFile, f.Copyright)
		for _, c := range f.Checksums {
			demand(len(c.Value) == digests[c.Algorithm] && strings.Trim(c.Value, "0123456789abcdef") == "", "file %q: checksum %s %q", f.Name, c.Algorithm, c.Value)
			if c.Algorithm == "SHA1" {
				sums[f.ID] = c.Value
			}
		}
		demand(sums[f.ID] != "", "file %q has no SHA1", f.Name)
	}
	for _, p := range doc.Packages {
		name(p.ID)
		demand(p.Name != "" && p.Version != "" && p.Download != "" && p.Copyright != "", "package %q lacks name, version, download or copyright", p.ID)
		demand(licence(p.Licence) && licence(p.Declared), "package %q: licences %q %q", p.Name, p.Licence, p.Declared)
		demand(p.Analyzed == (p.Verified != nil) && p.Analyzed == (len(p.InFiles) > 0), "package %q: what is said of its files does not agree", p.Name)
		for _, r := range p.Refs {
			demand(r.Category == "PACKAGE-MANAGER" && r.Type == "purl" && purl.MatchString(r.Locator), "package %q: reference %q", p.Name, r)
		}
	}
	described := false
	contained := map[string][]string{}
	for _, r := range doc.Relations {
		demand(ids[r.From] && ids[r.To], "a relationship joins %q and %q, which are not both there", r.From, r.To)
		demand(slices.Contains([]string{"DESCRIBES", "CONTAINS", "DEPENDS_ON"}, r.Kind), "relationship %q", r.Kind)
		described = described || r.Kind == "DESCRIBES" && r.From == doc.ID
		if r.Kind == "CONTAINS" {
			contained[r.From] = append(contained[r.From], sums[r.To])
		}
	}
	demand(described, "the document describes nothing")
	for _, p := range doc.Packages {
		if p.Verified != nil {
			demand(p.Verified.Value == verification(contained[p.ID]), "package %q: its verification code is not that of its files", p.Name)
		}
	}
	return &doc, errors.Join(wrong...)
}

// licence says whether an expression is of those that modules may have.
func licence(expression string) bool {
	if expression == "NOASSERTION" {
		return true
	}
	for l := range strings.SplitSeq(expression, " AND ") {
		if !slices.Contains(Allowed, l) {
			return false
		}
	}
	return true
}
