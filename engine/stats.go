package engine

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Stats is one reading of what a container uses; of one that does not run it has the time only.
func (e *Engine) Stats(ctx context.Context, ref string) (model.Stats, error) {
	en, err := e.find(ref)
	if err != nil {
		return model.Stats{}, err
	}
	t := en.running()
	if t == nil {
		return model.Stats{Read: e.now()}, nil
	}
	s, err := t.Figures().Stats(ctx)
	if err != nil {
		if ended(t) {
			return model.Stats{Read: e.now()}, nil
		}
		return s, errs.Wrap(err, "figures of container %s", en.get().Name)
	}
	if s.Read.IsZero() {
		s.Read = e.now()
	}
	if s.CPU.SystemTotal == 0 {
		s.CPU.SystemTotal, s.CPU.Online = machineCPU()
	}
	if s.Memory.Limit == 0 || s.Memory.Limit > machineMemory() {
		s.Memory.Limit = machineMemory()
	}
	if mode := en.get().Spec.Network.Mode; s.Networks == nil && mode != model.NetworkHost && !strings.HasPrefix(mode, "container:") {
		s.Networks = interfaces(t.Info().Pid)
	}
	return s, nil
}

// machineCPU is the time that all processors have spent, in nanoseconds, and how many there are.
func machineCPU() (total uint64, online uint32) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 8 || !strings.HasPrefix(f[0], "cpu"):
		case f[0] == "cpu":
			for _, text := range f[1:8] { // user nice system idle iowait irq softirq
				n, _ := strconv.ParseUint(text, 10, 64)
				total += n
			}
		default:
			online++
		}
	}
	return total * (1e9 / ticksPerSecond), online
}

// machineMemory is the machine's memory in bytes.
func machineMemory() uint64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadString('\n')
	if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
		kib, _ := strconv.ParseUint(fields[1], 10, 64)
		return kib * 1024
	}
	return 0
}

// interfaces reads the counters of a process's network namespace, the loopback left out.
func interfaces(pid int) map[string]model.NetworkStats {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil
	}
	return parseNetDev(data)
}

func parseNetDev(data []byte) map[string]model.NetworkStats {
	out := map[string]model.NetworkStats{}
	for line := range bytes.Lines(data) {
		name, rest, ok := strings.Cut(string(line), ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(f) < 12 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		out[name] = model.NetworkStats{RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11)}
	}
	return out
}
