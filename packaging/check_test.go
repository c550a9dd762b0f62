package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// sbom makes a bill of materials of this test program.
func sbom(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := SBOM(&b, "shoal", "1", time.Unix(0, 0), []string{self}, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCheckSBOM(t *testing.T) {
	good := sbom(t)
	if _, err := CheckSBOM([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for from, c := range map[string]struct{ to, says string }{
		`"SPDX-2.3"`:                 {`"SPDX-2.2"`, "head"},
		`"1970-01-01T00:00:00Z"`:     {`"1970-01-01"`, "created"},
		`"Tool: shoal`:               {`"shoal`, "creators"},
		`https://github.com/shoalhq`: {`x`, "namespace"},
		`"SPDXRef-module-1"`:         {`"SPDXRef-shoal"`, "twice"},
		`"SPDXRef-file-1"`:           {`"file 1"`, "identifier"},
		`"DESCRIBES"`:                {`"DEPENDS_ON"`, "describes nothing"},
		`"DEPENDS_ON"`:               {`"NEEDS"`, "NEEDS"},
		`"BSD-3-Clause"`:             {`"Artistic"`, "Artistic"},
		`pkg:golang/`:                {`pkg:golang/A`, "reference"},
		`"SHA1"`:                     {`"MD5"`, "checksum"},
		`"filesAnalyzed": true`:      {`"filesAnalyzed": false`, "agree"},
		`"name": "std"`:              {`"name": ""`, "lacks"},
		`"name": "shoal"`:            {`"nom": "shoal"`, "unknown field"},
	} {
		if !strings.Contains(good, from) {
			t.Errorf("the bill holds no %s", from)
		}
		if _, err := CheckSBOM([]byte(strings.Replace(good, from, c.to, 1))); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s → %s: %v", from, c.to, err)
		}
	}
}

// member is a file of an archive to make.
type member struct {
	name, data string
	mode       int64
	uid        int
}

func packed(members ...member) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755})
	for _, m := range members {
		kind := byte(tar.TypeReg)
		if strings.HasSuffix(m.name, "/") {
			kind = tar.TypeDir
		}
		w.WriteHeader(&tar.Header{Name: m.name, Typeflag: kind, Mode: m.mode, Uid: m.uid, Size: int64(len(m.data))})
		w.Write([]byte(m.data))
	}
	w.Close()
	z.Close()
	return b.String()
}

func deb(parts ...string) string {
	out := "!<arch>\n"
	for i, data := range parts {
		name := []string{"debian-binary", "control.tar.gz", "data.tar.gz"}[i]
		out += fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", name, 0, 0, 0, "100644", len(data), data)
		if len(data)%2 == 1 {
			out += "\n"
		}
	}
	return out
}

func TestCheckPackage(t *testing.T) {
	control := packed(member{name: "./control", data: "Package: shoal\nMaintainer: x\nArchitecture: arm64\nDescription: a b\n more\n"}, member{name: "./postinst", data: "#!/bin/sh\n", mode: 0o755})
	data := packed(member{name: "./usr/", mode: 0o755}, member{name: "./usr/bin/", mode: 0o755}, member{name: "./usr/bin/shoal", data: "text", mode: 0o755},
		member{name: "./usr/lib/", mode: 0o777}, member{name: "./usr/x", uid: 7, mode: 0o644}, member{name: "./etc/", mode: 0o755},
		member{name: "./usr/lib/systemd/", mode: 0o755}, member{name: "./usr/lib/systemd/system/", mode: 0o755},
		member{name: "./usr/lib/systemd/system/x.service", data: "[Service]\nDocumentation=man:x(8)\nExecStart=/usr/bin/x\n/secret/place\n", mode: 0o644})
	p, err := ReadPackage(strings.NewReader(deb("2.0\n", control, data)))
	if err != nil {
		t.Fatal(err)
	}
	err = p.Check("/secret/place")
	for _, says := range []string{`Maintainer "x"`, `Homepage ""`, "script /postinst", "script /prerm", "/usr/bin/shoald is missing", "shoal-run.1.gz is missing", "md5sums",
		"/usr/bin/shoal: EOF", "/usr/lib: mode 777", "/usr/x: belongs to 7:0", "/etc: lies outside", "cannot be enabled", "starts /usr/bin/x", "man8/x.8.gz", "/secret/place", "bill of materials"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("nothing says %q:\n%v", says, err)
		}
	}
	for _, bad := range []string{"", "!<arch>\n", "!<arch>\nx", deb("2.1\n", control, data), deb("2.0\n", control), deb("2.0\n", control, "x"),
		deb("2.0\n", control, packed(member{name: "./a"}, member{name: "a"})), deb("2.0\n", control, packed(member{name: "./a/b"})), deb("2.0\n", control, data)[:500],
		strings.Replace(deb("2.0\n", control, data), "4         `", "-4        `", 1)} {
		if _, err := ReadPackage(strings.NewReader(bad)); err == nil {
			t.Errorf("read: %.80q", bad)
		}
	}
}

func TestUsagePage(t *testing.T) {
	var b bytes.Buffer
	if err := UsagePage(&b, "x-y", "does things", ".dot\n'quote\n  --flag a\\b\n", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH X-Y 8 \"1970-01-01\"", "x\\-y \\- does things\n", "\n\\&.dot\n", "\n\\&'quote\n", "\\-\\-flag a\\eb\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
