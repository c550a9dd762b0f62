package transfer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// hostileLayer is the second layer of an image; the first has base/keep and base/other.
type hostileLayer struct {
	files []imagetest.File
	raw   []byte // instead of files
	says  string // it is refused with this; "": it is taken
	holds string // what the image then has besides directories, with the sizes of files; OUT is the directory outside
}

// hostileLayers are attempts to reach outside, to confuse what comes after, to fill the disk; by the name of the attempt.
func hostileLayers(outside string) map[string]hostileLayer {
	victim := outside + "/victim"
	dots := strings.Repeat("../", 12) + victim[1:]
	f := func(files ...imagetest.File) []imagetest.File { return files }
	link := func(name, target string) imagetest.File {
		return imagetest.File{Name: name, Kind: tar.TypeSymlink, Link: target}
	}
	hard := func(name, target string) imagetest.File {
		return imagetest.File{Name: name, Kind: tar.TypeLink, Link: target}
	}
	file := func(name string) imagetest.File { return imagetest.File{Name: name, Data: "x"} }
	empty := func(name string) imagetest.File { return imagetest.File{Name: name} }
	pax := func(key, value string) []imagetest.File {
		return f(imagetest.File{Name: "a", Pax: map[string]string{"SCHILY.xattr." + key: value}})
	}
	many := make([]imagetest.File, 40)
	for i := range many {
		many[i] = imagetest.File{Name: "same", Data: strings.Repeat("x", i)}
	}
	const base = "base/keep=0 base/other=0"
	return map[string]hostileLayer{
		"dots":                     {files: f(file(dots)), holds: "OUT/victim=1 " + base},
		"dots in the middle":       {files: f(file("a/../../.." + victim)), holds: "OUT/victim=1 " + base},
		"absolute name":            {files: f(file(victim)), holds: "OUT/victim=1 " + base},
		"symlink, then through":    {files: f(link("d", outside), file("d/victim")), holds: "OUT/victim=1 " + base + " d"},
		"symlink at the name":      {files: f(link("d", victim), file("d")), holds: base + " d=1"},
		"relative symlink":         {files: f(link("a/d", "../"+dots[:len(dots)-7]), file("a/d/victim")), holds: "OUT/victim=1 a/d " + base},
		"symlink to itself":        {files: f(link("d", "d"), file("d/x")), says: "too many links"},
		"symlink loop":             {files: f(link("a", "b"), link("b", "a"), file("a/x")), says: "too many links"},
		"symlink to the root":      {files: f(link("d", "/"), file("d/x")), holds: base + " d x=1"},
		"symlink instead of dir":   {files: f(empty("d/"), link("d", outside), file("d/victim")), holds: "OUT/victim=1 " + base + " d"},
		"chain of symlinks":        {files: f(link("a", ".."), link("b", "a/.."), link("c", "b"+outside), file("c/victim")), holds: "OUT/victim=1 a b " + base + " c"},
		"hard link out":            {files: f(hard("h", victim)), says: "malformed: link"},
		"hard link out by dots":    {files: f(hard("h", dots)), says: "malformed: link"},
		"hard link by symlink":     {files: f(link("d", outside), hard("h", "d/victim")), says: "malformed: link"},
		"hard link to a symlink":   {files: f(link("l", victim), hard("h", "l"), file("h")), holds: base + " h=1 l"},
		"hard link to itself":      {files: f(hard("h", "h")), says: "malformed: link"},
		"hard link to a directory": {files: f(empty("d/"), hard("h", "d")), says: "malformed: link"},
		"whiteout out":             {files: f(link("d", outside), empty("d/.wh.victim")), holds: base + " d"},
		"whiteout out by dots":     {files: f(empty("a/../../../" + dots[:len(dots)-6] + ".wh.victim")), holds: base},
		"whiteout of dot":          {files: f(empty("a/.wh..")), says: "whiteout"},
		"whiteout of dots":         {files: f(empty("a/.wh...")), says: "whiteout"},
		"whiteout of nothing":      {files: f(empty("a/.wh.")), says: "whiteout"},
		"whiteout as a directory":  {files: f(empty(".wh.d/"), file(".wh.d/x")), says: "below a whiteout"},
		"whiteout with content":    {files: f(file("base/.wh.keep")), holds: "base/other=0"},
		"whiteout of its own":      {files: f(empty("a/"), empty(".wh.a"), file("a/b")), holds: "a/b=1 " + base},
		"whiteout, then the file":  {files: f(empty("base/.wh.keep"), file("base/keep")), holds: "base/keep=1 base/other=0"},
		"file, then the whiteout":  {files: f(file("base/keep"), empty("base/.wh.keep")), holds: "base/keep=1 base/other=0"},
		"opaque through a symlink": {files: f(link("d", outside), empty("d/.wh..wh..opq")), holds: base + " d"},
		"opaque directory":         {files: f(empty("base/.wh..wh..opq"), file("base/new")), holds: "base/new=1"},
		"opaque directory, later":  {files: f(file("base/new"), empty("base/.wh..wh..opq")), holds: "base/new=1"},
		"opaque root":              {files: f(empty(".wh..wh..opq"), file("new")), holds: "new=1"},
		"opaque root, same name":   {files: f(empty(".wh..wh..opq"), file("base/new")), holds: "base/new=1"},
		"opaque below a file":      {files: f(file("o"), empty("o/.wh..wh..opq")), says: "malformed"},
		"books of AUFS":            {files: f(empty(".wh..wh.plnk/"), file(".wh..wh.plnk/1.2"), empty(".wh..wh.aufs")), holds: base},
		"file as a directory":      {files: f(file("a"), file("a/b")), says: "malformed"},
		"hidden device":            {files: f(imagetest.File{Name: "base/keep", Kind: tar.TypeChar, Data: "0/0"}), says: "device 0/0"},
		"overlay's attributes":     {files: pax("trusted.overlay.redirect", "/"), holds: "a=0 " + base},
		"overlay's, of users":      {files: pax("user.overlay.whiteout", "y"), holds: "a=0 " + base},
		"attribute of no space":    {files: pax("nonsense", "x"), holds: "a=0 " + base},
		"broken capabilities":      {files: pax("security.capability", "much"), says: "setxattr"},
		"long name":                {files: f(file(strings.Repeat("x", 5000))), says: "name too long"},
		"long part of a name":      {files: f(file("a/" + strings.Repeat("x", 256))), says: "name too long"},
		"deep":                     {files: f(file(strings.Repeat("x/", 2500) + "x")), says: "name too long"},
		"long target":              {files: f(link("l", strings.Repeat("x", 5000))), says: "name too long"},
		"empty target":             {files: f(link("l", "")), says: "malformed: symlink"},
		"same name many times":     {files: many, holds: base + " same=39"},
		"root is a file":           {files: f(file("/")), holds: base},
		"root is a symlink":        {files: f(link("./", outside), file("victim")), holds: base + " victim=1"},
		"newline in a name":        {files: f(file("a\nb"), link("l", "x\ny")), holds: "a\nb=1 " + base + " l"},
		"newline in a record":      {raw: paxEntry("path=a\nevil", "a", 1), holds: "a\nevil=1 " + base},
		"record that lies":         {raw: rawPax("99 path=a\n", "b", 0), says: "invalid tar header"},
		"record of a nul":          {raw: paxEntry("path=a\x00b", "a", 0), says: "invalid tar header"},
		"negative size":            {raw: paxEntry("size=-1", "a", 0), says: "invalid tar header"},
		"huge file":                {raw: paxEntry("size=9000000000000000000", "a", 0), says: "does not fit"},
		"huge sparse file":         {raw: sparseEntry("a", 1<<50), says: "does not fit"},
		"sparse map that overlaps": {raw: sparseEntry("a", -1), says: "invalid tar header"},
	}
}

// rawHeader is a header of 512 bytes with a right checksum, padded content and all.
func rawHeader(name string, kind byte, data []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), Uid: os.Getuid(), Gid: os.Getgid(), Format: tar.FormatUSTAR})
	w.Write(data)
	w.Flush()
	h := b.Bytes()
	h[156] = kind
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func rawPax(records, name string, size int) []byte {
	out := rawHeader("PaxHeaders/"+name, tar.TypeXHeader, []byte(records))
	out = append(out, rawHeader(name, tar.TypeReg, bytes.Repeat([]byte("x"), size))...)
	return append(out, make([]byte, 1024)...)
}

func paxRecord(text string) string {
	n := len(text) + 3
	for len(fmt.Sprintf("%d %s\n", n, text)) != n {
		n++
	}
	return fmt.Sprintf("%d %s\n", n, text)
}

func paxEntry(record, name string, size int) []byte { return rawPax(paxRecord(record), name, size) }

// sparseEntry is a file that says it has size bytes, of which none is in the archive (GNU format 1.0); of a size below 0 the
// parts overlap.
func sparseEntry(name string, size int64) []byte {
	parts := fmt.Sprintf("1\n%d\n0\n", size)
	if size < 0 {
		size, parts = 100, "2\n0\n512\n10\n512\n"
	}
	data := append([]byte(parts), make([]byte, 512-len(parts))...)
	records := paxRecord("GNU.sparse.major=1") + paxRecord("GNU.sparse.minor=0") + paxRecord("GNU.sparse.name="+name) + paxRecord(fmt.Sprintf("GNU.sparse.realsize=%d", size))
	out := rawHeader("PaxHeaders/"+name, tar.TypeXHeader, []byte(records))
	return append(append(out, rawHeader(name, tar.TypeReg, data)...), make([]byte, 1024)...)
}

// tryHostileLayers loads an image with each of them: nothing outside is touched; what is refused is refused with a reason, and
// nothing of it is recorded. look opens the root filesystem that the directories make.
func tryHostileLayers(t *testing.T, driver string, look func(dirs []string) string) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "images")
	s := store.New(store.Config{Root: root, Driver: driver})
	t.Cleanup(func() { s.Close() })
	base := imagetest.Layer(t, imagetest.File{Name: "base/"}, imagetest.File{Name: "base/keep"}, imagetest.File{Name: "base/other"})
	for name, c := range hostileLayers(outside) {
		t.Run(name, func(t *testing.T) {
			evil := c.raw
			if c.files != nil {
				evil = imagetest.Layer(t, c.files...)
			}
			out, err := Load(t.Context(), s, bytes.NewReader(imagetest.Docker(imagetest.Image{Tags: []string{"bad:1"}, Layers: [][]byte{base, evil}})), nil, nil)
			switch kind := errs.KindOf(err); {
			case err == nil && c.says != "":
				t.Errorf("it was taken")
			case err != nil && (c.says == "" || !strings.Contains(err.Error(), c.says)):
				t.Errorf("refused with %v, not %q", err, c.says)
			case err != nil && kind != errs.Invalid && kind != errs.Exhausted:
				t.Errorf("refused as %v: %v", kind, err)
			case err == nil:
				dirs, err := s.Lowers(t.Context(), out[0].ID)
				if err != nil {
					t.Fatal(err)
				}
				if got := listing(look(dirs), outside); got != c.holds {
					t.Errorf("it has %q, not %q", got, c.holds)
				}
				if _, err := s.Remove(t.Context(), "bad:1", model.ImageRemoveOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if u, err := s.DiskUsage(t.Context()); err != nil || len(u.Images) > 0 || u.ContentSize+u.LayersSize > 0 {
				t.Errorf("left: %+v %v", u, err)
			}
			b, rerr := os.ReadFile(victim)
			st, serr := os.Stat(victim)
			if list, _ := os.ReadDir(outside); rerr != nil || serr != nil || string(b) != "precious" || st.Mode() != 0o600 || len(list) != 1 {
				t.Fatalf("the file outside: %q %v %v %v", b, rerr, serr, list)
			}
		})
	}
}

// listing is what a directory has, besides directories.
func listing(dir, outside string) string {
	var out []string
	filepath.WalkDir(dir+"/", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return nil // overlay lists a whiteout in a directory that no layer beneath has, and then says that it is not there
		}
		rel, _ := filepath.Rel(dir, path)
		rel = strings.Replace(rel, outside[1:], "OUT", 1)
		if st.Mode().IsRegular() {
			rel += fmt.Sprintf("=%d", st.Size())
		}
		out = append(out, rel)
		return nil
	})
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestHostileLayers(t *testing.T) {
	tryHostileLayers(t, store.DriverNative, func(dirs []string) string { return dirs[0] })
}
