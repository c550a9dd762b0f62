package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
)

// figures are what one sample of a container says.
type figures struct {
	CPU               float64 // percent of one processor
	Mem, MemLimit     float64 // bytes
	MemPercent        float64
	NetIn, NetOut     float64
	BlockIn, BlockOut float64
	PIDs              uint64
}

// statsRow is a line of `stats`.
type statsRow struct {
	figures
	Container, ID, Name string
	err                 error
	fresh               bool // a sample has come
	short               bool
}

func (r statsRow) shownID() string {
	if r.short {
		return shortID(r.ID)
	}
	return r.ID
}

func (r statsRow) name() string {
	if len(r.Name) > 1 {
		return strings.TrimPrefix(r.Name, "/")
	}
	return "--"
}

func (r statsRow) percent(v float64) string {
	if !r.fresh {
		return "--"
	}
	return fmt.Sprintf("%.2f%%", v)
}

func (r statsRow) memory() string {
	if !r.fresh {
		return "-- / --"
	}
	return units.BytesSize(r.Mem) + " / " + units.BytesSize(r.MemLimit)
}

func (r statsRow) pair(in, out float64) string {
	if !r.fresh {
		return "--"
	}
	return units.HumanSizeWithPrecision(in, 3) + " / " + units.HumanSizeWithPrecision(out, 3)
}

func (r statsRow) pids() string {
	if !r.fresh {
		return "--"
	}
	return fmt.Sprint(r.PIDs)
}

// statsBoard gathers the samples of many containers.
type statsBoard struct {
	ctx    context.Context
	api    *moby.Client
	stream bool
	mu     sync.Mutex
	order  []*statsEntry
	first  sync.WaitGroup // each container's first answer
	lost   chan error     // the engine that told of containers is gone
}

type statsEntry struct {
	row    statsRow
	cancel context.CancelFunc
	gone   bool
}

func newStatsBoard(ctx context.Context, api *moby.Client, stream bool) *statsBoard {
	return &statsBoard{ctx: ctx, api: api, stream: stream, lost: make(chan error, 1)}
}

// add begins to gather samples of the container.
func (b *statsBoard) add(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.order {
		if e.row.Container == name {
			return
		}
	}
	ctx, cancel := context.WithCancel(b.ctx)
	e := &statsEntry{row: statsRow{Container: name, ID: name}, cancel: cancel}
	b.order = append(b.order, e)
	b.first.Add(1)
	go b.gather(ctx, e, sync.OnceFunc(b.first.Done))
}

func (b *statsBoard) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, e := range b.order {
		if e.row.ID == name || e.row.Container == name {
			e.cancel()
			b.order = append(b.order[:i], b.order[i+1:]...)
			return
		}
	}
}

// gather reads the container's samples until they end.
func (b *statsBoard) gather(ctx context.Context, e *statsEntry, answered func()) {
	defer answered()
	defer e.cancel()
	res, err := b.api.ContainerStats(ctx, e.row.Container, moby.ContainerStatsOptions{Stream: b.stream, IncludePreviousSample: !b.stream})
	if err == nil {
		defer res.Body.Close()
		dec := json.NewDecoder(res.Body)
		for {
			var s container.StatsResponse
			if err = dec.Decode(&s); err != nil {
				break
			}
			b.mu.Lock()
			e.row.figures, e.row.Name, e.row.fresh = figuresOf(&s), s.Name, true
			if s.ID != "" {
				e.row.ID = s.ID
			}
			b.mu.Unlock()
			answered()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e.gone = true
	if !errors.Is(err, io.EOF) && ctx.Err() == nil {
		e.row.err = err
	}
}

// wait waits until every container has given all it will.
func (b *statsBoard) wait() { b.first.Wait() }

// waitFirst waits for the first answers, so that the first table is not full of dashes.
func (b *statsBoard) waitFirst() {
	done := make(chan struct{})
	go func() { b.first.Wait(); close(done) }()
	select {
	case <-done:
	case <-b.ctx.Done():
	}
}

func (b *statsBoard) rows(short bool) []statsRow {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []statsRow
	for _, e := range b.order {
		if e.row.err != nil {
			continue
		}
		r := e.row
		r.short = short
		if e.gone && b.stream {
			r.figures, r.fresh = figures{}, false
		}
		out = append(out, r)
	}
	return out
}

func (b *statsBoard) firstError() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.order {
		if e.row.err != nil {
			return e.row.err
		}
	}
	return nil
}

// empty says that all the streams have ended.
func (b *statsBoard) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.order {
		if !e.gone {
			return false
		}
	}
	return true
}

// figuresOf works out what people want to see of a sample.
func figuresOf(s *container.StatsResponse) figures {
	f := figures{PIDs: s.PidsStats.Current, Mem: float64(memoryInUse(&s.MemoryStats)), MemLimit: float64(s.MemoryStats.Limit)}
	cpu := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if cpu > 0 && system > 0 {
		f.CPU = cpu / system * cpus * 100
	}
	if f.MemLimit > 0 {
		f.MemPercent = f.Mem / f.MemLimit * 100
	}
	for _, n := range s.Networks {
		f.NetIn += float64(n.RxBytes)
		f.NetOut += float64(n.TxBytes)
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch {
		case e.Op == "":
		case e.Op[0] == 'r' || e.Op[0] == 'R':
			f.BlockIn += float64(e.Value)
		case e.Op[0] == 'w' || e.Op[0] == 'W':
			f.BlockOut += float64(e.Value)
		}
	}
	return f
}

// memoryInUse leaves out file content that the kernel would drop first: the inactive part of the page cache, which has
// another name in cgroup v1.
func memoryInUse(m *container.MemoryStats) uint64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[key]; ok {
			if v < m.Usage {
				return m.Usage - v
			}
			return m.Usage
		}
	}
	return m.Usage
}
