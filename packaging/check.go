package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalhq/shoal/cli"
)

// entry is a file of a package.
type entry struct {
	header tar.Header
	data   []byte
}

// Package is a Debian package that was read whole; paths begin with a slash.
type Package struct {
	Control map[string]string // fields of the file control
	scripts map[string]entry  // what else dpkg gets: maintainer scripts and checksums
	files   map[string]entry
}

// ReadPackage reads a Debian package whose members are packed with gzip, as dpkg-deb -Zgzip makes it; deb(5).
func ReadPackage(r io.Reader) (*Package, error) {
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	rest, found := bytes.CutPrefix(all, []byte("!<arch>\n"))
	if !found {
		return nil, errors.New("this is no archive of ar")
	}
	var names []string
	members := map[string][]byte{}
	for len(rest) > 0 {
		if len(rest) < 60 || string(rest[58:60]) != "`\n" {
			return nil, fmt.Errorf("the head of a member after %q is damaged", names)
		}
		name := strings.TrimRight(string(rest[:16]), " /")
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		if err != nil || size < 0 || 60+size > len(rest) {
			return nil, fmt.Errorf("member %q is said to have %q bytes", name, rest[48:58])
		}
		names, members[name] = append(names, name), rest[60:60+size]
		rest = rest[min(60+size+size%2, len(rest)):]
	}
	if want := []string{"debian-binary", "control.tar.gz", "data.tar.gz"}; !slices.Equal(names, want) || string(members[want[0]]) != "2.0\n" {
		return nil, fmt.Errorf("members are %q of format %q, want %q of 2.0", names, members["debian-binary"], want)
	}
	p := &Package{}
	if p.scripts, err = untar(members["control.tar.gz"]); err != nil {
		return nil, fmt.Errorf("control.tar.gz: %w", err)
	}
	if p.files, err = untar(members["data.tar.gz"]); err != nil {
		return nil, fmt.Errorf("data.tar.gz: %w", err)
	}
	p.Control = fields(string(p.scripts["/control"].data))
	return p, nil
}

func untar(packed []byte) (map[string]entry, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	files := map[string]entry{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean("/" + h.Name)
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		if _, before := files[path.Dir(name)]; !before && name != "/" {
			return nil, fmt.Errorf("%s comes before its directory", name)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		files[name] = entry{*h, data}
	}
}

// fields reads the lines of a control file; those that go on another line keep what is on the first.
func fields(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") {
			m[name] = strings.TrimSpace(value)
		}
	}
	return m
}

// required is what our package has besides a page for each verb.
var required = []string{"/usr/bin/shoal", "/usr/bin/shoald", "/usr/bin/shoal-runtime", "/usr/lib/systemd/system/shoald.service", "/usr/lib/systemd/system/shoald.socket",
	"/usr/share/bash-completion/completions/shoal", "/usr/share/zsh/vendor-completions/_shoal", "/usr/share/fish/vendor_completions.d/shoal.fish",
	"/usr/share/doc/shoal/copyright", "/usr/share/doc/shoal/changelog.gz", "/usr/share/doc/shoal/licences.txt", "/usr/share/doc/shoal/shoal.spdx.json",
	"/usr/share/man/man8/shoald.8.gz", "/usr/share/man/man8/shoal-runtime.8.gz"}

// Check tells everything that is wrong with our package; forbidden are texts that no file may have, such as the
// directory in which it was built.
func (p *Package) Check(forbidden ...string) error {
	var wrong []error
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	for name, pattern := range map[string]string{"Package": `^shoal$`, "Version": `^\d[A-Za-z0-9.+~-]*$`, "Architecture": `^(amd64|arm64)$`, "Maintainer": `^\S.* <\S+@\S+>$`,
		"Homepage": `^https://`, "Installed-Size": `^\d+$`, "Section": `^admin$`, "Priority": `^optional$`, "Description": `^[a-z].{10,78}[^.]$`} {
		if !regexp.MustCompile(pattern).MatchString(p.Control[name]) {
			say("control has %s %q, want what matches %s", name, p.Control[name], pattern)
		}
	}
	for _, name := range []string{"/postinst", "/prerm", "/postrm"} {
		if s := p.scripts[name]; !bytes.HasPrefix(s.data, []byte("#!/bin/sh\nset -e\n")) || s.header.Mode != 0o755 {
			say("maintainer script %s is missing, does not end at the first error, or has mode %o", name, s.header.Mode)
		}
	}
	for _, name := range append(slices.Clone(required), pages()...) {
		if len(p.files[name].data) == 0 {
			say("%s is missing or empty", name)
		}
	}
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		f := p.files[name]
		if f.header.Typeflag == tar.TypeReg {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.data), name[1:])
		}
		if err := p.checkFile(name, f, forbidden); err != nil {
			say("%s: %w", name, err)
		}
	}
	if sums.String() != string(p.scripts["/md5sums"].data) {
		say("md5sums are not those of the files")
	}
	return errors.Join(append(wrong, p.checkUnits(), p.checkBill())...)
}

// pages are the manual pages of the verbs.
func pages() (out []string) {
	for _, c := range cli.Command().Commands() {
		if c.IsAvailableCommand() {
			out = append(out, "/usr/share/man/man1/shoal-"+c.Name()+".1.gz")
		}
	}
	return append(out, "/usr/share/man/man1/shoal.1.gz")
}

// mode is what a package's directories, programs and other files have.
func mode(name string, h tar.Header) int64 {
	if h.Typeflag == tar.TypeDir || strings.HasPrefix(name, "/usr/bin/") {
		return 0o755
	}
	return 0o644
}

func (p *Package) checkFile(name string, f entry, forbidden []string) error {
	h := f.header
	switch {
	case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir:
		return fmt.Errorf("type %c is neither file nor directory", h.Typeflag)
	case h.Uid != 0 || h.Gid != 0:
		return fmt.Errorf("belongs to %d:%d", h.Uid, h.Gid)
	case h.Mode != mode(name, h):
		return fmt.Errorf("mode %o, want %o", h.Mode, mode(name, h))
	case !h.ModTime.Equal(p.files["/"].header.ModTime):
		return fmt.Errorf("time %v is not that of the release, %v", h.ModTime, p.files["/"].header.ModTime)
	case !strings.HasPrefix(name+"/", "/usr/") && name != "/":
		return errors.New("lies outside /usr")
	case h.Typeflag == tar.TypeDir:
		return nil
	}
	for _, text := range forbidden {
		if bytes.Contains(f.data, []byte(text)) {
			return fmt.Errorf("holds %q", text)
		}
	}
	switch path.Dir(name) {
	case "/usr/bin":
		return checkProgram(f.data, p.Control["Architecture"])
	case "/usr/share/man/man1", "/usr/share/man/man8":
		z, err := gzip.NewReader(bytes.NewReader(f.data))
		if err != nil {
			return err
		}
		page, err := io.ReadAll(z)
		if err != nil || !bytes.Contains(page, []byte(".TH ")) || !bytes.Contains(page, []byte(".SH NAME\n")) {
			return fmt.Errorf("this is no manual page with its name and title: %w", err)
		}
	}
	return nil
}

// checkProgram finds out whether a program is for the machine and needs no libraries.
func checkProgram(data []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
		return fmt.Errorf("is for %v in a package for %s", f.Machine, arch)
	}
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			return errors.New("needs shared libraries")
		}
	}
	return nil
}

// checkUnits finds out whether the units start what is there, name pages that are there, and can be enabled.
func (p *Package) checkUnits() error {
	var wrong []error
	for name, f := range p.files {
		if path.Dir(name) != "/usr/lib/systemd/system" || f.header.Typeflag == tar.TypeDir {
			continue
		}
		text := string(f.data)
		if !strings.Contains(text, "\n[Install]\nWantedBy=") {
			wrong = append(wrong, fmt.Errorf("%s cannot be enabled", name))
		}
		for _, m := range regexp.MustCompile(`(?m)^Exec\w+=(\S+)`).FindAllStringSubmatch(text, -1) {
			if _, ours := p.files[m[1]]; !ours && m[1] != "/bin/kill" {
				wrong = append(wrong, fmt.Errorf("%s starts %s, which the package has not", name, m[1]))
			}
		}
		for _, m := range regexp.MustCompile(`man:(\S+)\((\d)\)`).FindAllStringSubmatch(text, -1) {
			if page := "/usr/share/man/man" + m[2] + "/" + m[1] + "." + m[2] + ".gz"; len(p.files[page].data) == 0 {
				wrong = append(wrong, fmt.Errorf("%s names %s, which the package has not", name, page))
			}
		}
	}
	return errors.Join(wrong...)
}

// checkBill finds out whether the bill of materials is valid and is about these programs.
func (p *Package) checkBill() error {
	doc, err := CheckSBOM(p.files["/usr/share/doc/shoal/shoal.spdx.json"].data)
	if err != nil {
		return err
	}
	have := map[string]string{}
	for _, f := range doc.Files {
		for _, c := range f.Checksums {
			have[path.Base(f.Name)+" "+c.Algorithm] = c.Value
		}
	}
	for _, name := range required[:3] {
		if sum := sha256sum(p.files[name].data); have[path.Base(name)+" SHA256"] != sum {
			return fmt.Errorf("the bill of materials is about another %s than that with SHA256 %s", path.Base(name), sum)
		}
	}
	return nil
}

// CheckRelease checks all packages and bills in a directory.
func CheckRelease(dir string, forbidden ...string) error {
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	bills, _ := filepath.Glob(filepath.Join(dir, "*.spdx.json"))
	if len(debs) == 0 || len(bills) != len(debs) {
		return fmt.Errorf("%s has %d packages and %d bills of materials", dir, len(debs), len(bills))
	}
	var wrong []error
	for _, name := range debs {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		p, err := ReadPackage(f)
		f.Close()
		if err == nil {
			err = p.Check(forbidden...)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s:\n%w", name, err))
		}
	}
	for _, name := range bills {
		b, err := os.ReadFile(name)
		if err == nil {
			_, err = CheckSBOM(b)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s:\n%w", name, err))
		}
	}
	return errors.Join(wrong...)
}
