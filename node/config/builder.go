package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	units "github.com/docker/go-units"

	"github.com/shoalhq/shoal/model"
)

// Builder is about builds and their cache.
type Builder struct {
	KeepAll       bool                      // nothing of the cache is removed by itself
	Keep          model.BuildPruneOptions   // limits of the cache; zeros choose by the size of the disk
	Rules         []model.BuildPruneOptions // in place of the rules that Keep gives
	HistoryAge    time.Duration             // how long builds are listed; zero chooses
	HistoryCount  int64                     // how many are; zero chooses
	NoHostNetwork bool                      // steps never get the host's network
	Insecure      bool                      // steps may ask for all rights
	NoDevices     bool                      // steps never get devices
}

// builderFile is the key "builder" of daemon.json, with Docker's former names for sizes.
type builderFile struct {
	GC struct {
		Enabled              *bool
		Policy               []gcRule
		DefaultKeepStorage   string
		DefaultReservedSpace string
		DefaultMaxUsedSpace  string
		DefaultMinFreeSpace  string
	}
	Entitlements struct {
		NetworkHost      *bool `json:"network-host"`
		Device           *bool
		SecurityInsecure bool `json:"security-insecure"`
	}
	History struct {
		MaxAge     string
		MaxEntries int64
	}
}

type gcRule struct {
	All                                                    bool
	Filter                                                 []string
	KeepStorage, ReservedSpace, MaxUsedSpace, MinFreeSpace string
}

func setBuilder(c *Config, v string) error {
	var f builderFile
	dec := json.NewDecoder(bytes.NewReader([]byte(v)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return err
	}
	b := Builder{KeepAll: f.GC.Enabled != nil && !*f.GC.Enabled, HistoryCount: f.History.MaxEntries, Insecure: f.Entitlements.SecurityInsecure,
		NoHostNetwork: f.Entitlements.NetworkHost != nil && !*f.Entitlements.NetworkHost, NoDevices: f.Entitlements.Device != nil && !*f.Entitlements.Device}
	var err error
	if b.Keep, err = limits(f.GC.DefaultKeepStorage, f.GC.DefaultReservedSpace, f.GC.DefaultMaxUsedSpace, f.GC.DefaultMinFreeSpace); err != nil {
		return err
	}
	for i, r := range f.GC.Policy {
		o, err := limits(r.KeepStorage, r.ReservedSpace, r.MaxUsedSpace, r.MinFreeSpace)
		if err != nil {
			return fmt.Errorf("policy %d: %w", i+1, err)
		}
		o.All, o.Filters = r.All, map[string][]string{}
		for _, text := range r.Filter {
			key, value, ok := strings.Cut(text, "=")
			if !ok {
				return fmt.Errorf("policy %d: filter %q: want KEY=VALUE, for example unused-for=24h", i+1, text)
			}
			key = strings.ToLower(strings.TrimSpace(key))
			o.Filters[key] = append(o.Filters[key], strings.TrimSpace(value))
		}
		b.Rules = append(b.Rules, o)
	}
	if f.History.MaxAge != "" {
		if b.HistoryAge, err = time.ParseDuration(f.History.MaxAge); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	c.Builder = b
	return nil
}

// limits reads sizes; keep is the former name of reserved.
func limits(keep, reserved, used, free string) (o model.BuildPruneOptions, err error) {
	if reserved == "" {
		reserved = keep
	}
	for _, s := range []struct {
		name, text string
		to         *int64
	}{{"reserved space", reserved, &o.ReservedSize}, {"space used at most", used, &o.MaxUsed}, {"free space at least", free, &o.MinFree}} {
		if s.text == "" {
			continue
		}
		if *s.to, err = units.RAMInBytes(s.text); err != nil {
			return o, fmt.Errorf("%s %q is not a size: %w; want for example 20GB", s.name, s.text, err)
		}
	}
	return o, nil
}
