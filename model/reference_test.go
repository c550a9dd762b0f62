package model

import (
	"strings"
	"testing"

	witness "github.com/distribution/reference"
	"pgregory.net/rapid"
)

func TestParseReference(t *testing.T) {
	const d = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for in, want := range map[string][2]string{ // full, familiar
		"hello":                     {"docker.io/library/hello:latest", "hello:latest"},
		"hello:1":                   {"docker.io/library/hello:1", "hello:1"},
		"shoal/hello":               {"docker.io/shoal/hello:latest", "shoal/hello:latest"},
		"index.docker.io/hello":     {"docker.io/library/hello:latest", "hello:latest"},
		"localhost/hello":           {"localhost/hello:latest", "localhost/hello:latest"},
		"localhost:5000/a/b:c":      {"localhost:5000/a/b:c", "localhost:5000/a/b:c"},
		"[::1]:5000/a":              {"[::1]:5000/a:latest", "[::1]:5000/a:latest"},
		"hello" + d:                 {"docker.io/library/hello" + d, "hello" + d},
		"hello:1" + d:               {"docker.io/library/hello:1" + d, "hello:1" + d},
		"docker.io/library/a/b":     {"docker.io/library/a/b:latest", "library/a/b:latest"},
		"example.com/a__b/c--d.e_f": {"example.com/a__b/c--d.e_f:latest", "example.com/a__b/c--d.e_f:latest"},
	} {
		r, err := ParseReference(in)
		if err != nil || r.String() != want[0] || r.Familiar() != want[1] {
			t.Errorf("%q: %q, %q, %v", in, r.String(), r.Familiar(), err)
		}
	}
	for _, in := range []string{"", "Hello", ":1", "a@b", "a..b", "a:", "a:-x", "a/", "/a", "-a/b.c", "a b", "a\nb", strings.Repeat("a", 64),
		"h:x/y", "a@sha256:12", "x.y/" + strings.Repeat("a", 256)} {
		if r, err := ParseReference(in); err == nil {
			t.Errorf("%q accepted as %q", in, r)
		}
	}
}

// The published grammar's own implementation must agree on everything.
func TestParseReferenceAgreesWithWitness(t *testing.T) {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"a", "b1", "A", ".", "..", "_", "__", "___", "-", "--", "/", ":", "@", "sha256:", "localhost", "docker.io",
			"library", "[", "]", "::1", "5000", "latest", "index.docker.io", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}),
		rapid.StringN(0, 3, 3))
	rapid.Check(t, func(t *rapid.T) {
		s := strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, "pieces"), "")
		agree(t, s)
	})
}

func agree(t interface{ Fatalf(string, ...any) }, s string) {
	got, err := ParseRepository(s)
	want, wantErr := witness.ParseNormalizedNamed(s)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%q: %v; witness: %v", s, err, wantErr)
	}
	if err == nil && (got.String() != want.String() || got.Familiar() != witness.FamiliarString(want)) {
		t.Fatalf("%q: %q %q; witness: %q %q", s, got.String(), got.Familiar(), want.String(), witness.FamiliarString(want))
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("localhost:5000/a/b:c")
	f.Fuzz(func(t *testing.T, s string) { agree(t, s) })
}
