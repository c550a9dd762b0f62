package server

import (
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// buildRequest reads the parameters of POST /build.
func buildRequest(q query, v types.Version) (model.BuildRequest, error) {
	r := model.BuildRequest{ID: q.Get("buildid"), Remote: q.Get("remote")}
	switch version := q.Get("version"); version {
	case "", "1":
	case "2":
		if r.Session = q.Get("session"); r.Session == "" {
			return r, errs.New(errs.Invalid, "build: version=2 is BuildKit with a client session; the parameter session is missing")
		}
	default:
		return r, errs.New(errs.Invalid, "build: invalid version %q: use 1 (classic) or 2 (BuildKit with a session)", version)
	}
	if r.Remote == "client-session" { // the session has the context
		if r.Session == "" {
			return r, errs.New(errs.Invalid, "build: remote=client-session needs version=2 and a session")
		}
		r.Remote = ""
	}
	if i := q.Get("isolation"); i != "" && i != "default" {
		return r, errs.New(errs.Invalid, "build: isolation %q is of Windows; leave it out", i)
	}
	r.Source = model.BuildSource{Dockerfile: q.Get("dockerfile"), Target: q.Get("target"), Tags: q.Values["t"], Squash: q.bool("squash")}
	want, err := platforms(q.Values["platform"])
	if err != nil {
		return r, err
	}
	r.Source.Platform = strings.Join(want, ",")
	r.Options = model.BuildOptions{NoCache: q.bool("nocache"), Pull: q.bool("pull"), Network: q.Get("networkmode"), Quiet: q.bool("q"), ExtraHosts: q.Values["extrahosts"]}
	if err := readJSONParams(q, &r); err != nil {
		return r, err
	}
	if err := buildLimits(q, &r.Limits); err != nil {
		return r, err
	}
	for _, t := range r.Source.Tags {
		if _, err := model.ParseReference(t); err != nil {
			return r, err
		}
	}
	return r, nil
}

// readJSONParams reads the parameters that hold JSON documents.
func readJSONParams(q query, r *model.BuildRequest) error {
	var ulimits []*container.Ulimit
	var outputs []struct {
		Type  string
		Attrs map[string]string
	}
	for name, to := range map[string]any{"buildargs": &r.Source.Args, "labels": &r.Source.Labels, "cachefrom": &r.Options.CacheFrom,
		"ulimits": &ulimits, "outputs": &outputs} {
		if text := q.Get(name); text != "" {
			if err := decodeJSON([]byte(text), to); err != nil {
				return errs.Wrap(err, "build: parameter %s", name)
			}
		}
	}
	for _, u := range ulimits {
		if u != nil {
			r.Limits.Ulimits = append(r.Limits.Ulimits, model.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
		}
	}
	for _, o := range outputs {
		r.Outputs = append(r.Outputs, model.BuildOutput{Type: o.Type, Attrs: o.Attrs})
	}
	return nil
}

func buildLimits(q query, l *model.BuildLimits) error {
	for name, to := range map[string]*int64{"memory": &l.Memory, "memswap": &l.MemorySwap, "cpushares": &l.CPUShares, "cpuquota": &l.CPUQuota,
		"cpuperiod": &l.CPUPeriod, "shmsize": &l.ShmSize} {
		n, err := q.int(name, 0)
		if err != nil {
			return err
		}
		*to = int64(n)
	}
	if l.ShmSize < 0 {
		return errs.New(errs.Invalid, "SHM size can not be less than 0")
	}
	l.CpusetCPUs, l.CpusetMems, l.CgroupParent = q.Get("cpusetcpus"), q.Get("cpusetmems"), q.Get("cgroupparent")
	return nil
}
