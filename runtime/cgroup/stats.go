package cgroup

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Stats reads everything once. For readings again and again use a Reader, which costs a third.
func (m *Manager) Stats() (*Stats, error) {
	r := m.NewReader()
	defer r.Close()
	return r.Read()
}

// Reader reads the figures of one container again and again: it keeps the files open, so that one reading is one
// system call per file (about 20 on v1, 10 on v2). It is for one goroutine. Close it.
type Reader struct {
	m     *Manager
	files map[string]int // path → descriptor; -1 for a file that is not there
	buf   []byte
	gone  bool
}

// NewReader opens nothing yet.
func (m *Manager) NewReader() *Reader {
	return &Reader{m: m, files: map[string]int{}, buf: make([]byte, 16<<10)}
}

// Close gives the files back.
func (r *Reader) Close() error {
	for _, fd := range r.files {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	r.files = map[string]int{}
	return nil
}

// file gives the whole text of a file of the hierarchy, "" when there is none. The text is valid until the next call.
func (r *Reader) file(i int, name string) string {
	if i < 0 || r.m.dirs[i] == "" {
		return ""
	}
	path := filepath.Join(r.m.dirs[i], name)
	fd, known := r.files[path]
	if !known {
		var err error
		if fd, err = openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC); err != nil {
			fd = -1
		}
		r.files[path] = fd
	}
	if fd < 0 {
		return ""
	}
	for n := 0; ; {
		got, err := unix.Pread(fd, r.buf[n:], int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENODEV:
			r.gone = true
			return ""
		case err != nil:
			return "" // for example EOPNOTSUPP of pressure files with psi=0
		}
		// The kernel gives these files whole if they fit; only a full buffer may have more.
		if n += got; got == 0 || n < len(r.buf) {
			return string(r.buf[:n])
		}
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
}

func (r *Reader) number(i int, name string) uint64 { return parseNumber(r.file(i, name)) }

// parseNumber reads a number or "max". v1 shows no limit as the largest multiple of the page size.
func parseNumber(s string) uint64 {
	s = strings.TrimSpace(s)
	if s == "max" {
		return Unlimited
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func limitV1(n uint64) uint64 {
	if n >= 1<<63-1<<16 {
		return Unlimited
	}
	return n
}

// Read takes one reading. A container that is gone is NotFound.
func (r *Reader) Read() (*Stats, error) {
	h := r.m.host
	s := &Stats{}
	r.cpu(s, h.find("cpu"), h.find("cpuacct"))
	r.memory(s)
	r.pids(s)
	r.io(s)
	r.hugetlb(s)
	r.rdma(s)
	r.psi(s)
	if r.gone || r.nothing() {
		return nil, errs.New(errs.NotFound, "read the figures of control group %s: it is gone: is the container still running?", r.m.group)
	}
	return s, nil
}

// nothing says whether no file could be opened at all.
func (r *Reader) nothing() bool {
	for _, fd := range r.files {
		if fd >= 0 {
			return false
		}
	}
	return !r.m.Exists()
}

// tick is the length of USER_HZ in nanoseconds: 100 on every architecture Linux supports.
const tick = 10_000_000

func (r *Reader) cpu(s *Stats, cpu, acct int) {
	c := &s.CPU
	if acct < 0 || r.m.host.Hierarchies[acct].Unified { // v2: cpu.stat is in every cgroup2 group, controller or not
		u := r.m.host.unified()
		text := r.file(u, "cpu.stat")
		c.Usage, c.User, c.System = keyed(text, "usage_usec")*1000, keyed(text, "user_usec")*1000, keyed(text, "system_usec")*1000
	} else {
		// One file has user and system time per processor, counted by ticks: a young process may have none. Older kernels
		// lack it. The sum is exact.
		c.Usage = r.number(acct, "cpuacct.usage")
		if text := r.file(acct, "cpuacct.usage_all"); text != "" {
			c.addUsageAll(text)
		} else {
			text := r.file(acct, "cpuacct.stat")
			c.User, c.System = keyed(text, "user")*tick, keyed(text, "system")*tick
		}
	}
	if cpu < 0 {
		return
	}
	text := r.file(cpu, "cpu.stat")
	c.Periods, c.ThrottledPeriods = keyed(text, "nr_periods"), keyed(text, "nr_throttled")
	c.Bursts = keyed(text, "nr_bursts")
	if r.m.host.Hierarchies[cpu].Unified {
		c.Throttled, c.BurstTime = keyed(text, "throttled_usec")*1000, keyed(text, "burst_usec")*1000
	} else {
		c.Throttled, c.BurstTime = keyed(text, "throttled_time"), keyed(text, "burst_time")
	}
}

// addUsageAll reads "cpu user system" with one line per processor.
func (c *CPUStats) addUsageAll(text string) {
	first := true
	for line := range strings.Lines(text) {
		if first {
			first = false
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		user, system := parseNumber(f[1]), parseNumber(f[2])
		c.User, c.System = c.User+user, c.System+system
		c.PerCPU = append(c.PerCPU, user+system)
	}
}

func (r *Reader) memory(s *Stats) {
	i := r.m.host.find("memory")
	if i < 0 {
		return
	}
	m := &s.Memory
	text := r.file(i, "memory.stat")
	m.Detail = make(map[string]uint64, 40)
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			m.Detail[k] = parseNumber(v)
		}
	}
	if !r.m.host.Hierarchies[i].Unified {
		m.Usage, m.Peak = r.number(i, "memory.usage_in_bytes"), r.number(i, "memory.max_usage_in_bytes")
		m.Limit, m.FailCount = limitV1(r.number(i, "memory.limit_in_bytes")), r.number(i, "memory.failcnt")
		m.SwapUsage, m.SwapPeak = r.number(i, "memory.memsw.usage_in_bytes"), r.number(i, "memory.memsw.max_usage_in_bytes")
		m.SwapLimit = limitV1(r.number(i, "memory.memsw.limit_in_bytes"))
		m.Anon, m.File = m.Detail["total_rss"], m.Detail["total_cache"]
		m.InactiveFile = m.Detail["total_inactive_file"]
		m.OOMKills = keyed(r.file(i, "memory.oom_control"), "oom_kill")
		return
	}
	m.Usage, m.Peak, m.Limit = r.number(i, "memory.current"), r.number(i, "memory.peak"), r.number(i, "memory.max")
	m.SwapUsage, m.SwapPeak, m.SwapLimit = r.number(i, "memory.swap.current"), r.number(i, "memory.swap.peak"), r.number(i, "memory.swap.max")
	m.Anon, m.File, m.InactiveFile = m.Detail["anon"], m.Detail["file"], m.Detail["inactive_file"]
	events := r.file(i, "memory.events")
	m.OOMKills, m.FailCount = keyed(events, "oom_kill"), keyed(events, "max")
}

func (r *Reader) pids(s *Stats) {
	if i := r.m.host.find("pids"); i >= 0 {
		s.Pids = PidsStats{Current: r.number(i, "pids.current"), Limit: r.number(i, "pids.max")}
	}
}

func (r *Reader) io(s *Stats) {
	byDevice := map[[2]uint64]*IOStats{}
	at := func(dev string) *IOStats {
		major, minor, ok := strings.Cut(dev, ":")
		if !ok {
			return nil
		}
		key := [2]uint64{parseNumber(major), parseNumber(minor)}
		if byDevice[key] == nil {
			byDevice[key] = &IOStats{Major: key[0], Minor: key[1]}
		}
		return byDevice[key]
	}
	if i := r.m.host.find("blkio"); i >= 0 {
		// The throttling layer counts for every scheduler; only with BFQ as well do the bfq files count.
		for line := range strings.Lines(r.file(i, "blkio.throttle.io_service_bytes_recursive")) {
			ioV1(line, at, func(d *IOStats, op string, n uint64) { d.addBytes(op, n) })
		}
		for line := range strings.Lines(r.file(i, "blkio.throttle.io_serviced_recursive")) {
			ioV1(line, at, func(d *IOStats, op string, n uint64) { d.addOps(op, n) })
		}
	} else if i := r.m.host.find("io"); i >= 0 {
		for line := range strings.Lines(r.file(i, "io.stat")) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			d := at(f[0])
			if d == nil {
				continue
			}
			for _, kv := range f[1:] {
				d.addV2(kv)
			}
		}
	}
	for _, d := range byDevice {
		s.IO = append(s.IO, *d)
	}
	slices.SortFunc(s.IO, func(a, b IOStats) int {
		if a.Major != b.Major {
			return int(a.Major) - int(b.Major)
		}
		return int(a.Minor) - int(b.Minor)
	})
}

// ioV1 reads "8:0 Read 4096".
func ioV1(line string, at func(string) *IOStats, add func(*IOStats, string, uint64)) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return // the "Total" line at the end
	}
	if d := at(f[0]); d != nil {
		add(d, f[1], parseNumber(f[2]))
	}
}

func (d *IOStats) addBytes(op string, n uint64) {
	switch op {
	case "Read":
		d.ReadBytes += n
	case "Write":
		d.WriteBytes += n
	case "Discard":
		d.Discards += n
	}
}

func (d *IOStats) addOps(op string, n uint64) {
	switch op {
	case "Read":
		d.Reads += n
	case "Write":
		d.Writes += n
	case "Discard":
		d.DiscardOps += n
	}
}

func (d *IOStats) addV2(kv string) {
	k, v, _ := strings.Cut(kv, "=")
	n := parseNumber(v)
	switch k {
	case "rbytes":
		d.ReadBytes = n
	case "wbytes":
		d.WriteBytes = n
	case "dbytes":
		d.Discards = n
	case "rios":
		d.Reads = n
	case "wios":
		d.Writes = n
	case "dios":
		d.DiscardOps = n
	}
}

func (r *Reader) hugetlb(s *Stats) {
	i := r.m.host.find("hugetlb")
	if i < 0 {
		return
	}
	s.Hugetlb = map[string]HugetlbStats{}
	for _, size := range hugePageSizes() {
		p := "hugetlb." + size + "."
		if r.m.host.Hierarchies[i].Unified {
			s.Hugetlb[size] = HugetlbStats{Usage: r.number(i, p+"current"), Limit: r.number(i, p+"max"),
				FailCount: keyed(r.file(i, p+"events"), "max")}
			continue
		}
		s.Hugetlb[size] = HugetlbStats{Usage: r.number(i, p+"usage_in_bytes"), Peak: r.number(i, p+"max_usage_in_bytes"),
			Limit: limitV1(r.number(i, p+"limit_in_bytes")), FailCount: r.number(i, p+"failcnt")}
	}
}

// hugePageSizes lists the sizes the kernel has in the notation of its file names: "2MB", "1GB".
func hugePageSizes() []string {
	var out []string
	for _, name := range children("/sys/kernel/mm/hugepages") {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		switch {
		case kb >= 1<<20:
			out = append(out, strconv.FormatUint(kb>>20, 10)+"GB")
		case kb >= 1<<10:
			out = append(out, strconv.FormatUint(kb>>10, 10)+"MB")
		default:
			out = append(out, strconv.FormatUint(kb, 10)+"KB")
		}
	}
	slices.Sort(out)
	return out
}

func (r *Reader) rdma(s *Stats) {
	i := r.m.host.find("rdma")
	if i < 0 {
		return
	}
	s.RDMA = map[string]RDMAStats{}
	for _, name := range [...]string{"rdma.current", "rdma.max"} {
		for line := range strings.Lines(r.file(i, name)) {
			f := strings.Fields(line)
			if len(f) < 3 {
				continue
			}
			d := s.RDMA[f[0]]
			handles, objects := parseNumber(strings.TrimPrefix(f[1], "hca_handle=")), parseNumber(strings.TrimPrefix(f[2], "hca_object="))
			if name == "rdma.current" {
				d.Handles, d.Objects = handles, objects
			} else {
				d.HandleLimit, d.ObjectLimit = handles, objects
			}
			s.RDMA[f[0]] = d
		}
	}
}

func (r *Reader) psi(s *Stats) {
	u := r.m.host.unified()
	cpu := r.file(u, "cpu.pressure")
	if cpu == "" {
		return
	}
	s.PSI = &PSIStats{CPU: parsePressure(cpu), Memory: parsePressure(r.file(u, "memory.pressure")), IO: parsePressure(r.file(u, "io.pressure"))}
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the same for full.
func parsePressure(text string) (p Pressure) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 5 {
			continue
		}
		var l PressureLine
		for i, into := range [...]*float64{&l.Avg10, &l.Avg60, &l.Avg300} {
			_, v, _ := strings.Cut(f[i+1], "=")
			*into, _ = strconv.ParseFloat(v, 64)
		}
		l.Total = time.Duration(parseNumber(strings.TrimPrefix(f[4], "total="))) * time.Microsecond
		if f[0] == "some" {
			p.Some = l
		} else if f[0] == "full" {
			p.Full = l
		}
	}
	return p
}
