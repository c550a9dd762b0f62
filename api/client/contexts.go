package client

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
)

// ConfigFile is the part of Docker's config.json that choosing a server needs.
type ConfigFile struct {
	CurrentContext string            `json:"currentContext,omitempty"`
	HTTPHeaders    map[string]string `json:"HttpHeaders,omitempty"`
}

// Context is a named server in Docker's context store.
type Context struct {
	Name          string
	Description   string
	Host          string
	SkipTLSVerify bool
	TLSDir        string // directory with ca.pem, cert.pem, key.pem; "" when there is none
}

// contextMeta is the store's own file format: contexts/meta/<sha256 of the name>/meta.json.
type contextMeta struct {
	Name      string
	Metadata  map[string]any `json:",omitempty"`
	Endpoints map[string]contextEndpoint
}

type contextEndpoint struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// ConfigDir is the directory in use: the option, DOCKER_CONFIG, or ~/.docker.
func (o Options) configDir() string {
	if o.ConfigDir != "" {
		return o.ConfigDir
	}
	if d := o.getenv("DOCKER_CONFIG"); d != "" {
		return d
	}
	home := o.getenv("HOME")
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	return filepath.Join(home, ".docker")
}

// DefaultConfigDir is the directory used when nothing was said.
func DefaultConfigDir() string { return Options{}.configDir() }

// ReadConfig reads config.json of the directory; a missing file is an empty configuration.
func ReadConfig(dir string) (ConfigFile, error) {
	var c ConfigFile
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return c, nil
	}
	if err != nil {
		return c, errs.New(errs.Forbidden, "read the client's configuration: %w; it may name the engine to use: make it readable, or choose another directory with --config or DOCKER_CONFIG", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, errs.New(errs.Invalid, "the client's configuration %s is not valid JSON: %w", path, err)
	}
	return c, nil
}

func contextDir(dir, kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(dir, "contexts", kind, hex.EncodeToString(sum[:]))
}

// LoadContext reads one context of the store under dir.
func LoadContext(dir, name string) (Context, error) {
	path := filepath.Join(contextDir(dir, "meta", name), "meta.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Context{}, errs.New(errs.NotFound, "there is no context %q in %s; \"shoal context ls\" lists them", name, dir)
	}
	if err != nil {
		return Context{}, errs.Wrap(err, "read context %q", name)
	}
	return parseContext(dir, path, data)
}

func parseContext(dir, path string, data []byte) (Context, error) {
	var m contextMeta
	if err := json.Unmarshal(data, &m); err != nil {
		return Context{}, errs.New(errs.Damaged, "the context's record %s is not valid JSON: %w", path, err)
	}
	ep := m.Endpoints["docker"]
	c := Context{Name: m.Name, Host: ep.Host, SkipTLSVerify: ep.SkipTLSVerify}
	c.Description, _ = m.Metadata["Description"].(string)
	tlsDir := filepath.Join(contextDir(dir, "tls", m.Name), "docker")
	if _, err := os.Stat(tlsDir); err == nil {
		c.TLSDir = tlsDir
	}
	return c, nil
}

// ListContexts lists the contexts of the store under dir by name, without the "default" one that is always there.
func ListContexts(dir string) ([]Context, error) {
	metas, err := filepath.Glob(filepath.Join(dir, "contexts", "meta", "*", "meta.json"))
	if err != nil {
		return nil, err
	}
	var out []Context
	for _, path := range metas {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, errs.Wrap(err, "list contexts")
		}
		c, err := parseContext(dir, path, data)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// SaveContext writes a context to the store under dir. tlsFiles maps ca.pem, cert.pem and key.pem to their content.
func SaveContext(dir string, c Context, tlsFiles map[string][]byte) error {
	if err := validContextName(c.Name); err != nil {
		return err
	}
	// Docker's command line wants hosts whole.
	host, err := normalHost(c.Host, c.SkipTLSVerify || len(tlsFiles) > 0)
	if err != nil {
		return errs.Wrap(err, "save context %q", c.Name)
	}
	m := contextMeta{Name: c.Name, Metadata: map[string]any{}, Endpoints: map[string]contextEndpoint{
		"docker": {Host: host, SkipTLSVerify: c.SkipTLSVerify}}}
	if c.Description != "" {
		m.Metadata["Description"] = c.Description
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	metaDir := contextDir(dir, "meta", c.Name)
	if err := os.MkdirAll(metaDir, 0o700); err != nil {
		return errs.Wrap(err, "save context %q", c.Name)
	}
	if len(tlsFiles) > 0 {
		tlsDir := filepath.Join(contextDir(dir, "tls", c.Name), "docker")
		if err := os.MkdirAll(tlsDir, 0o700); err != nil {
			return errs.Wrap(err, "save context %q", c.Name)
		}
		for name, content := range tlsFiles {
			if err := atomicfile.Write(filepath.Join(tlsDir, name), content, 0o600, atomicfile.Durable); err != nil {
				return errs.Wrap(err, "save context %q", c.Name)
			}
		}
	}
	return errs.Wrap(atomicfile.Write(filepath.Join(metaDir, "meta.json"), data, 0o600, atomicfile.Durable), "save context %q", c.Name)
}

// RemoveContext takes a context and its certificates out of the store under dir.
func RemoveContext(dir, name string) error {
	if _, err := LoadContext(dir, name); err != nil {
		return err
	}
	if err := os.RemoveAll(contextDir(dir, "tls", name)); err != nil {
		return errs.Wrap(err, "remove context %q", name)
	}
	return errs.Wrap(os.RemoveAll(contextDir(dir, "meta", name)), "remove context %q", name)
}

// UseContext makes a context the current one in config.json; everything else in that file stays as it is.
func UseContext(dir, name string) error {
	if name != "default" {
		if _, err := LoadContext(dir, name); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, "config.json")
	all := map[string]json.RawMessage{}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(err, "use context %q", name)
	}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &all); err != nil {
			return errs.New(errs.Invalid, "the client's configuration %s is not valid JSON: %w", path, err)
		}
	}
	if name == "default" {
		delete(all, "currentContext")
	} else {
		all["currentContext"], _ = json.Marshal(name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.Wrap(err, "use context %q", name)
	}
	out, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return errs.Wrap(atomicfile.Write(path, append(out, '\n'), 0o600, atomicfile.Durable), "use context %q", name)
}

func validContextName(name string) error {
	ok := name != "" && name != "default"
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.+-", rune(c))) {
			ok = false
		}
	}
	if !ok {
		return errs.New(errs.Invalid, "context name %q: use letters, digits, and after the first of these also _ . + -; \"default\" is taken", name)
	}
	return nil
}
