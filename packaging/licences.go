package packaging

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Module is a Go module that is linked into a program.
type Module struct {
	Path, Version, Dir string
	Licences           []string // SPDX identifiers of the texts in its root
	Texts              []string // names of those files
}

// Allowed are the licences that a linked module may have.
var Allowed = []string{"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0", "CC0-1.0"}

// phrases tell a licence's text, in this order: some contain others.
var phrases = []struct{ phrase, id string }{
	{"at your option, under either: * Apache License", "Apache-2.0"}, // a choice
	{"GNU AFFERO GENERAL PUBLIC LICENSE", "AGPL"}, {"GNU LESSER GENERAL PUBLIC LICENSE", "LGPL"}, {"GNU GENERAL PUBLIC LICENSE", "GPL"},
	{"Server Side Public License", "SSPL"}, {"Business Source License", "BUSL"},
	{"Mozilla Public License", "MPL-2.0"}, {"Apache License", "Apache-2.0"}, {"CC0 1.0 Universal", "CC0-1.0"},
	{"Permission to use, copy, modify, and/or distribute this software", "ISC"},
	{"Permission to use, copy, modify, and distribute this software for any", "ISC"},
	{"Permission is hereby granted, free of charge", "MIT"},
}

// Licence tells which licence a text is, or "".
func Licence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, p := range phrases {
		if strings.Contains(text, p.phrase) {
			return p.id
		}
	}
	if strings.Contains(text, "Redistribution and use in source and binary forms") {
		if strings.Contains(text, "Neither the name") || strings.Contains(text, "names of its contributors") || strings.Contains(text, "may be used to endorse") {
			return "BSD-3-Clause"
		}
		return "BSD-2-Clause"
	}
	return ""
}

// Modules finds the modules of the given paths in the module cache, with their licences. It is run in a directory of ours.
func Modules(paths []string) ([]Module, error) {
	cmd := exec.Command("go", append([]string{"list", "-m", "-json=Path,Version,Dir,Replace"}, paths...)...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	var list []Module
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var m Module
		if err := d.Decode(&m); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if err := m.read(); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

func (m *Module) read() error {
	if m.Dir == "" {
		return errors.New("module " + m.Path + " is not in the module cache: run go mod download")
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "LICENSE") && !strings.HasPrefix(name, "LICENCE") && !strings.HasPrefix(name, "COPYING") && !strings.HasPrefix(name, "NOTICE") {
			continue
		}
		if strings.HasSuffix(name, ".DOCS") {
			continue // of documentation, which is not passed on
		}
		m.Texts = append(m.Texts, e.Name())
		if strings.HasPrefix(name, "NOTICE") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return err
		}
		if id := Licence(string(text)); !slices.Contains(m.Licences, id) {
			m.Licences = append(m.Licences, id)
		}
	}
	return nil
}

// Texts writes the licences of all modules one after the other, as most of them ask of whoever passes programs on.
func Texts(w io.Writer, modules []Module) error {
	for _, m := range modules {
		fmt.Fprintf(w, "==== %s %s (%s)\n\n", m.Path, m.Version, strings.Join(m.Licences, ", "))
		for _, name := range m.Texts {
			text, err := os.ReadFile(filepath.Join(m.Dir, name))
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "%s\n\n", strings.TrimSpace(string(text))); err != nil {
				return err
			}
		}
	}
	return nil
}
