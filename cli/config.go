package cli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/terminal"
	"github.com/shoalhq/shoal/lib/errs"
)

// configFile is the part of Docker's config.json that verbs use.
type configFile struct {
	DetachKeys string                       `json:"detachKeys"`
	Proxies    map[string]map[string]string `json:"proxies"`
	PluginDirs []string                     `json:"cliPluginsExtraDirs"`
	Aliases    map[string]string            `json:"aliases"`
	Prune      []string                     `json:"pruneFilters"`
	Formats    map[string]string            `json:"-"` // psFormat, imagesFormat ...
}

func (a *App) configDir() string {
	if a.global.ConfigDir != "" {
		return a.global.ConfigDir
	}
	return client.DefaultConfigDir()
}

// settings reads config.json once; a missing file is an empty configuration, a broken one is told of and ignored.
func (a *App) settings() *configFile {
	if a.config != nil {
		return a.config
	}
	c := &configFile{}
	a.config = c
	data, err := os.ReadFile(filepath.Join(a.configDir(), "config.json"))
	if errors.Is(err, fs.ErrNotExist) || len(data) == 0 {
		return c
	}
	if err == nil {
		err = json.Unmarshal(data, c)
	}
	if err != nil {
		a.warn("the configuration file in %s cannot be used: %v", a.configDir(), err)
		return c
	}
	all := map[string]any{}
	_ = json.Unmarshal(data, &all)
	c.Formats = map[string]string{}
	for key, v := range all {
		if s, ok := v.(string); ok {
			c.Formats[key] = s
		}
	}
	return c
}

// detachKeys gives the keys that detach: the flag's, else the configuration's, else ctrl-p ctrl-q.
func (a *App) detachKeys(flag string) (keys []byte, list string, err error) {
	if list = flag; list == "" {
		list = a.settings().DetachKeys
	}
	if list == "" {
		return terminal.DefaultDetachKeys(), "", nil
	}
	keys, err = terminal.ParseDetachKeys(list)
	return keys, list, err
}

// proxyNames are the settings of config.json's "proxies" and the variable that carries each.
var proxyNames = [...]struct{ key, name, low string }{
	{"httpProxy", "HTTP_PROXY", "http_proxy"}, {"httpsProxy", "HTTPS_PROXY", "https_proxy"},
	{"ftpProxy", "FTP_PROXY", "ftp_proxy"}, {"noProxy", "NO_PROXY", "no_proxy"}, {"allProxy", "ALL_PROXY", "all_proxy"},
}

// proxyVars gives the environment that config.json's "proxies" wants in containers on the host.
func (a *App) proxyVars(host string) map[string]*string {
	all := a.settings().Proxies
	set, ok := all[host]
	if !ok {
		set = all["default"]
	}
	out := map[string]*string{}
	for _, p := range proxyNames {
		if v := set[p.key]; v != "" {
			out[p.name], out[p.low] = &v, &v
		}
	}
	return out
}

// format is the --format in force: the flag, else the configuration's entry, else "table".
func (a *App) format(flag, key string, quiet bool) string {
	if flag == "" && !quiet && key != "" {
		flag = a.settings().Formats[key]
	}
	if flag == "" {
		return "table"
	}
	return flag
}

func badFlag(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }
