package node

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func TestSubordinate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	for text, want := range map[string][]model.IDMap{
		"me:1000:65536\n": {{Container: 0, Host: 1000, Size: 65536}},
		"# words\nyou:1:2\nme:1000:100\n7:2000:65536\n": {{Container: 0, Host: 1000, Size: 100}, {Container: 100, Host: 2000, Size: 65536}},
		"":                     nil,
		"me:1000:100\n":        nil,
		"me:0:65536\n":         nil,
		"me:x:65536\n":         nil,
		"me:4294967000:1000\n": nil,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := subordinate(file, []string{"me", "7"})
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	if _, err := subordinate(file+"none", []string{"me"}); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}
