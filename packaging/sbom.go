package packaging

import (
	"crypto/sha1"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Linked gives the paths of the modules that the programs were built from, as the linker noted them, and with it their versions.
func Linked(programs []string) (map[string]string, error) {
	modules := map[string]string{}
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("what %s was built from: %w", p, err)
		}
		modules["std"] = strings.TrimPrefix(info.GoVersion, "go")
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			modules[d.Path] = d.Version
		}
	}
	return modules, nil
}

// spdxDocument and what follows is SPDX 2.3, https://spdx.github.io/spdx-spec/v2.3/.
type spdxDocument struct {
	Version   string         `json:"spdxVersion"`
	Licence   string         `json:"dataLicense"`
	ID        string         `json:"SPDXID"`
	Name      string         `json:"name"`
	Namespace string         `json:"documentNamespace"`
	Creation  spdxCreation   `json:"creationInfo"`
	Packages  []spdxPackage  `json:"packages"`
	Files     []spdxFile     `json:"files"`
	Relations []spdxRelation `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID        string    `json:"SPDXID"`
	Name      string    `json:"name"`
	Version   string    `json:"versionInfo"`
	Download  string    `json:"downloadLocation"`
	Analyzed  bool      `json:"filesAnalyzed"`
	Verified  *spdxCode `json:"packageVerificationCode,omitempty"`
	InFiles   []string  `json:"licenseInfoFromFiles,omitempty"`
	Licence   string    `json:"licenseConcluded"`
	Declared  string    `json:"licenseDeclared"`
	Copyright string    `json:"copyrightText"`
	Refs      []spdxRef `json:"externalRefs,omitempty"`
}

// spdxCode is the SHA1 of the sorted SHA1s of the package's files.
type spdxCode struct {
	Value string `json:"packageVerificationCodeValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxFile struct {
	ID        string         `json:"SPDXID"`
	Name      string         `json:"fileName"`
	Checksums []spdxChecksum `json:"checksums"`
	Licence   string         `json:"licenseConcluded"`
	InFile    []string       `json:"licenseInfoInFiles"`
	Copyright string         `json:"copyrightText"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// own is our licence.
const own = "Apache-2.0"

// SBOM writes an SPDX document of the programs: their checksums, and the modules within them with versions and licences.
func SBOM(w io.Writer, name, version string, at time.Time, programs []string, modules []Module) error {
	linked, err := Linked(programs)
	if err != nil {
		return err
	}
	licences := map[string]string{"std": "BSD-3-Clause"}
	for _, m := range modules {
		licences[m.Path] = strings.Join(m.Licences, " AND ")
	}
	shoal := spdxPackage{ID: "SPDXRef-shoal", Name: name, Version: version, Download: "NOASSERTION", Licence: own, Declared: own, Copyright: "NOASSERTION",
		Analyzed: true, InFiles: []string{own}}
	doc := spdxDocument{Version: "SPDX-2.3", Licence: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name + "-" + version,
		Creation: spdxCreation{at.UTC().Format(time.RFC3339), []string{"Tool: shoal-build-release"}}}
	doc.relate(doc.ID, "DESCRIBES", shoal.ID)
	var sums []string
	for i, p := range programs {
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f := spdxFile{ID: fmt.Sprintf("SPDXRef-file-%d", i+1), Name: "./" + filepath.Base(p), Licence: own, InFile: []string{own}, Copyright: "NOASSERTION",
			Checksums: []spdxChecksum{{"SHA1", sha1sum(b)}, {"SHA256", sha256sum(b)}}}
		sums, doc.Files = append(sums, f.Checksums[0].Value), append(doc.Files, f)
		doc.relate(shoal.ID, "CONTAINS", f.ID)
	}
	shoal.Verified = &spdxCode{verification(sums)}
	doc.Packages = append(doc.Packages, shoal)
	for i, p := range slices.Sorted(maps.Keys(linked)) {
		licence := orElse(licences[p], "NOASSERTION")
		m := spdxPackage{ID: fmt.Sprintf("SPDXRef-module-%d", i+1), Name: p, Version: linked[p], Download: "NOASSERTION", Licence: licence, Declared: licence, Copyright: "NOASSERTION",
			Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + strings.ToLower(p) + "@" + strings.ReplaceAll(linked[p], "+", "%2B")}}}
		doc.Packages = append(doc.Packages, m)
		doc.relate(shoal.ID, "DEPENDS_ON", m.ID)
	}
	doc.Namespace = "https://github.com/shoalhq/shoal/spdx/" + doc.Name + "-" + shoal.Verified.Value
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(doc)
}

func (d *spdxDocument) relate(from, kind, to string) {
	d.Relations = append(d.Relations, spdxRelation{from, kind, to})
}

func verification(sums []string) string {
	return sha1sum([]byte(strings.Join(slices.Sorted(slices.Values(sums)), "")))
}

func sha1sum(b []byte) string { sum := sha1.Sum(b); return hex.EncodeToString(sum[:]) }

func sha256sum(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
