package packaging

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLicences reads the licences of all modules that are linked into the programs.
func TestLicences(t *testing.T) {
	lists, _ := filepath.Glob("../test/arch/testdata/*.modules")
	if len(lists) != 3 {
		t.Fatalf("lists of linked modules: %q", lists)
	}
	var paths []string
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, strings.Fields(string(b))...)
	}
	slices.Sort(paths)
	modules, err := Modules(slices.Compact(paths))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if len(m.Licences) == 0 {
			t.Errorf("%s %s has no licence in %s", m.Path, m.Version, m.Dir)
		}
		for _, l := range m.Licences {
			if !slices.Contains(Allowed, l) {
				t.Errorf("%s %s: licence %q of %q is not among those allowed %q", m.Path, m.Version, l, m.Texts, Allowed)
			}
		}
	}
	var texts bytes.Buffer
	if err := Texts(&texts, modules); err != nil || !strings.Contains(texts.String(), "spf13/cobra") {
		t.Error(err)
	}
}

func TestLicenceOfAText(t *testing.T) {
	for text, want := range map[string]string{
		"The MIT License\n\nPermission is hereby granted,\nfree of charge, to": "MIT",
		"GNU GENERAL PUBLIC LICENSE Version 3":                                 "GPL",
		"Redistribution and use in source and binary forms":                    "BSD-2-Clause",
		"all rights reserved":                                                  "",
	} {
		if got := Licence(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestManualAndSBOM(t *testing.T) {
	dir := t.TempDir()
	if err := Manual(dir, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(dir + "/man1/shoal-run.1")
	if err != nil || !bytes.Contains(page, []byte("publish")) {
		have, _ := os.ReadDir(dir + "/man1")
		t.Errorf("the page of run: %v; there are %d: %v", err, len(have), have)
	}
	var doc struct {
		Packages []struct{ Name, VersionInfo string }
	}
	if err := json.Unmarshal([]byte(sbom(t)), &doc); err != nil || len(doc.Packages) < 2 {
		t.Errorf("%d packages, %v", len(doc.Packages), err)
	}
}
