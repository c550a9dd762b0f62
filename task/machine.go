package task

import (
	"bytes"
	"os"
	"strconv"
)

// ticksPerSecond is USER_HZ, the unit of /proc/stat, which is 100 on every architecture that Linux exports it for.
const ticksPerSecond = 100

// machineCPU is the processor time of the whole machine in nanoseconds (user, nice, system, idle, iowait, irq, softirq,
// steal, as the Docker Engine API sums it) and the number of processors online.
func machineCPU() (total uint64, online uint32) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(data) {
		if !bytes.HasPrefix(line, []byte("cpu")) {
			break
		}
		fields := bytes.Fields(line)
		if len(fields[0]) > 3 {
			online++
			continue
		}
		for i := 1; i < len(fields) && i <= 8; i++ {
			n, _ := strconv.ParseUint(string(fields[i]), 10, 64)
			total += n * (1e9 / ticksPerSecond)
		}
	}
	return total, online
}
