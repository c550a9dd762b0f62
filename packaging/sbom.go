package packaging

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
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

// spdxPackage and what follows is SPDX 2.3, https://spdx.github.io/spdx-spec/v2.3/.
type spdxPackage struct {
	ID        string    `json:"SPDXID"`
	Name      string    `json:"name"`
	Version   string    `json:"versionInfo"`
	Download  string    `json:"downloadLocation"`
	Analyzed  bool      `json:"filesAnalyzed"`
	Licence   string    `json:"licenseConcluded"`
	Declared  string    `json:"licenseDeclared"`
	Copyright string    `json:"copyrightText"`
	Refs      []spdxRef `json:"externalRefs,omitempty"`
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
	own := spdxPackage{ID: "SPDXRef-shoal", Name: name, Version: version, Download: "NOASSERTION", Licence: "Apache-2.0", Declared: "Apache-2.0", Copyright: "NOASSERTION"}
	packages, relations := []spdxPackage{own}, []spdxRelation{{"SPDXRef-DOCUMENT", "DESCRIBES", own.ID}}
	paths := make([]string, 0, len(linked))
	for p := range linked {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for i, p := range paths {
		id := fmt.Sprintf("SPDXRef-module-%d", i+1)
		licence := orElse(licences[p], "NOASSERTION")
		packages = append(packages, spdxPackage{ID: id, Name: p, Version: linked[p], Download: "NOASSERTION", Licence: licence, Declared: licence, Copyright: "NOASSERTION",
			Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + p + "@" + linked[p]}}})
		relations = append(relations, spdxRelation{own.ID, "DEPENDS_ON", id})
	}
	files, sum := []spdxFile{}, sha256.New()
	for i, p := range programs {
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(b)
		sum.Write(digest[:])
		id := fmt.Sprintf("SPDXRef-file-%d", i+1)
		files = append(files, spdxFile{ID: id, Name: "./" + filepath.Base(p), Licence: "Apache-2.0", Copyright: "NOASSERTION",
			Checksums: []spdxChecksum{{"SHA256", hex.EncodeToString(digest[:])}}})
		relations = append(relations, spdxRelation{own.ID, "CONTAINS", id})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(map[string]any{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": name + "-" + version,
		"documentNamespace": "https://shoalhq.example/spdx/" + name + "-" + version + "-" + hex.EncodeToString(sum.Sum(nil)[:16]),
		"creationInfo":      map[string]any{"created": at.UTC().Format(time.RFC3339), "creators": []string{"Tool: shoal-build-release"}},
		"packages":          packages, "files": files, "relationships": relations,
	})
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
