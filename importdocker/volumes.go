package importdocker

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// volume is one of Docker's volumes.
type volume struct {
	Name    string
	Driver  string
	Labels  map[string]string
	Options map[string]string
	data    string // its directory; "" when there is none
}

// anonymousLabel marks volumes that nobody named, since Docker 23.
const anonymousLabel = "com.docker.volume.anonymous"

// unnamed are the names that Docker makes up.
var unnamed = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Volume is a volume to be taken over.
type Volume struct {
	Name, Driver    string
	Labels, Options map[string]string
	Anonymous       bool
	Data            string // the directory with its content; "" when the content is elsewhere
}

// volumes lists the volumes of the database, and local ones of which only the directory is known.
func (s *Source) volumes() ([]volume, error) {
	byName := map[string]volume{}
	err := s.view("volumes/metadata.db", "volumes", func(_, value []byte) error {
		var v volume
		if err := json.Unmarshal(value, &v); err != nil {
			return errs.New(errs.Damaged, "volumes/metadata.db: %w", err)
		}
		byName[v.Name] = v
		return nil
	})
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "volumes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		data := filepath.Join(s.dir, "volumes", e.Name(), "_data")
		if st, err := os.Lstat(data); err != nil || !st.IsDir() {
			continue
		}
		v, known := byName[e.Name()]
		if !known {
			v = volume{Name: e.Name()}
			readJSON(filepath.Join(s.dir, "volumes", e.Name(), "opts.json"), &v.Options) // most have none
		}
		if v.Driver == "" || v.Driver == "local" {
			v.data = data
		}
		byName[e.Name()] = v
	}
	var list []volume
	for _, v := range byName {
		v.Driver = cmp.Or(v.Driver, "local")
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b volume) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (v *volume) wanted() Volume {
	_, anonymous := v.Labels[anonymousLabel]
	anonymous = anonymous || unnamed.MatchString(v.Name)
	want := Volume{Name: v.Name, Driver: v.Driver, Labels: v.Labels, Options: v.Options, Anonymous: anonymous, Data: v.data}
	if v.Options["type"] != "" || v.Options["device"] != "" || v.Options["o"] != "" {
		want.Data = "" // mounted from elsewhere
	}
	return want
}

// holds says whether a directory is known to have something in it.
func holds(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) > 0
}
