package ocicli

import (
	"encoding/json"
	"flag"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

// limit is one flag of update and where its value goes.
type limit struct {
	name  string
	bytes bool // the value may have a unit: k, m, g
	set   func(r *specs.LinuxResources, v int64)
}

func cpu(r *specs.LinuxResources) *specs.LinuxCPU {
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	return r.CPU
}

func memory(r *specs.LinuxResources) *specs.LinuxMemory {
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	return r.Memory
}

func unsigned(v int64) *uint64 { u := uint64(v); return &u }

var limits = []limit{
	{"blkio-weight", false, func(r *specs.LinuxResources, v int64) {
		w := uint16(v)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}},
	{"cpu-period", false, func(r *specs.LinuxResources, v int64) { cpu(r).Period = unsigned(v) }},
	{"cpu-quota", false, func(r *specs.LinuxResources, v int64) { cpu(r).Quota = &v }},
	{"cpu-burst", false, func(r *specs.LinuxResources, v int64) { cpu(r).Burst = unsigned(v) }},
	{"cpu-share", false, func(r *specs.LinuxResources, v int64) { cpu(r).Shares = unsigned(v) }},
	{"cpu-rt-period", false, func(r *specs.LinuxResources, v int64) { cpu(r).RealtimePeriod = unsigned(v) }},
	{"cpu-rt-runtime", false, func(r *specs.LinuxResources, v int64) { cpu(r).RealtimeRuntime = &v }},
	{"cpu-idle", false, func(r *specs.LinuxResources, v int64) { cpu(r).Idle = &v }},
	{"memory", true, func(r *specs.LinuxResources, v int64) { memory(r).Limit = &v }},
	{"memory-reservation", true, func(r *specs.LinuxResources, v int64) { memory(r).Reservation = &v }},
	{"memory-swap", true, func(r *specs.LinuxResources, v int64) { memory(r).Swap = &v }},
	{"pids-limit", false, func(r *specs.LinuxResources, v int64) { r.Pids = &specs.LinuxPids{Limit: &v} }},
}

func (c *command) update(args []string) (int, error) {
	f := flags("update")
	values := map[string]*string{}
	for _, l := range limits {
		values[l.name] = f.String(l.name, "", "")
	}
	file := f.String("resources", "", "")
	f.StringVar(file, "r", "", "")
	cpus, mems := f.String("cpuset-cpus", "", ""), f.String("cpuset-mems", "", "")
	rdt := []*string{f.String("l3-cache-schema", "", ""), f.String("mem-bw-schema", "", "")}
	rest, err := parse(f, args, 1, 1, "[--resources FILE|-] [--memory N] [--cpu-quota N] [--pids-limit N] ... ID")
	if err != nil {
		return 1, err
	}
	for _, schema := range rdt {
		if *schema != "" {
			return 1, errs.New(errs.Unsupported, "update: %q: this runtime does not set Intel RDT schemas; write it to the group below /sys/fs/resctrl", *schema)
		}
	}
	res := &specs.LinuxResources{}
	if *file != "" {
		data, err := readFileOrStdin(*file)
		if err != nil {
			return 1, errs.Wrap(err, "update: read --resources")
		}
		if err := json.Unmarshal(data, res); err != nil {
			return 1, errs.New(errs.Invalid, "update: --resources %s: %w", *file, err)
		}
	}
	given := map[string]bool{}
	f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
	for _, l := range limits {
		if !given[l.name] {
			continue
		}
		v, err := parseNumber(*values[l.name], l.bytes)
		if err != nil {
			return 1, errs.New(errs.Invalid, "update: --%s %q: %w", l.name, *values[l.name], err)
		}
		l.set(res, v)
	}
	if *cpus != "" {
		cpu(res).Cpus = *cpus
	}
	if *mems != "" {
		cpu(res).Mems = *mems
	}
	return 0, c.rt.Update(rest[0], res)
}

func parseNumber(text string, bytes bool) (int64, error) {
	shift := 0
	if bytes && len(text) > 1 {
		number := strings.TrimSuffix(strings.ToLower(text), "b")
		switch number[len(number)-1] {
		case 'k':
			shift = 10
		case 'm':
			shift = 20
		case 'g':
			shift = 30
		case 't':
			shift = 40
		}
		if shift > 0 {
			number = number[:len(number)-1]
		}
		text = number
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if v<<shift>>shift != v {
		return 0, strconv.ErrRange
	}
	return v << shift, nil
}
