package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// path is one way of bytes from a client's namespace to a server's.
type path struct {
	who            string
	server, client string // processes whose network namespaces these are
	addr           string
	port           int
}

// The hand-made network: what the kernel gives without any engine.
const handMade = `set -e
ip link add benchbr type bridge
ip addr add 10.253.0.1/24 dev benchbr
ip link set benchbr up
for n in 2 3; do
  pid=$(eval echo \$P$n)
  ip link add benchv$n type veth peer name eth0 netns $pid
  ip link set benchv$n master benchbr up
  nsenter -t $pid -n ip addr add 10.253.0.$n/24 dev eth0
  nsenter -t $pid -n ip link set eth0 up
  nsenter -t $pid -n ip route add default via 10.253.0.1
done
ip link add benchup type veth peer name eth0 netns $PC
ip addr add 198.51.100.1/24 dev benchup
ip link set benchup up
nsenter -t $PC -n ip addr add 198.51.100.2/24 dev eth0
nsenter -t $PC -n ip link set eth0 up
nsenter -t $PC -n ip route add default via 198.51.100.1
echo 1 > /proc/sys/net/ipv4/ip_forward
nft add table ip benchhand
nft 'add chain ip benchhand pre { type nat hook prerouting priority dstnat; }'
nft add rule ip benchhand pre tcp dport 5299 dnat to 10.253.0.2:5201
iptables -P FORWARD ACCEPT 2>/dev/null || true
`

// networkSpeed measures TCP between containers and to published ports beside the same paths made by hand.
func networkSpeed(r *report, o options, engines []*engine, _, _ string) error {
	if _, err := exec.LookPath("iperf3"); err != nil {
		r.note("network speed: iperf3 is not installed")
		return nil
	}
	var holders []*exec.Cmd
	defer func() {
		for _, h := range holders {
			h.Process.Kill()
			h.Wait()
		}
		exec.Command("ip", "link", "del", "benchbr").Run()
		exec.Command("nft", "delete", "table", "ip", "benchhand").Run()
	}()
	env := os.Environ()
	for _, name := range []string{"P2", "P3", "PC"} {
		h := exec.Command("sleep", "3600")
		h.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		if err := h.Start(); err != nil {
			return err
		}
		holders = append(holders, h)
		env = append(env, fmt.Sprintf("%s=%d", name, h.Process.Pid))
	}
	sh := exec.Command("sh", "-c", handMade)
	sh.Env = env
	if out, err := sh.CombinedOutput(); err != nil {
		return fmt.Errorf("network by hand: %v: %s", err, out)
	}
	pid := func(i int) string { return strconv.Itoa(holders[i].Process.Pid) }
	local := []path{{"by hand", pid(0), pid(1), "10.253.0.2", 5201}}
	published := []path{{"by hand", pid(0), pid(2), "198.51.100.1", 5299}}
	for i, e := range engines {
		if e.name == "podman" {
			continue // its networks need a program that is not part of it
		}
		port := 5300 + i
		for _, c := range [][]string{{"bench-s", "-p", fmt.Sprint(port) + ":5201"}, {"bench-c"}} {
			args := append([]string{"run", "-d", "--name", c[0]}, c[1:]...)
			if _, err := e.run(append(args, image, "/bin/sleep", "3600")...); err != nil {
				return err
			}
			defer e.run("rm", "-f", c[0])
		}
		s, err := e.run("inspect", "-f", "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "bench-s")
		c, err2 := e.run("inspect", "-f", "{{.State.Pid}}", "bench-c")
		if err != nil || err2 != nil {
			return fmt.Errorf("%v %v", err, err2)
		}
		spid, addr, _ := strings.Cut(s, " ")
		local = append(local, path{e.name, spid, c, addr, 5201})
		published = append(published, path{e.name, spid, pid(2), "198.51.100.1", port})
	}
	for _, m := range []transfer{
		{"TCP, container to container, one stream", "≥ 0.97 of by hand", 1, local},
		{"TCP, container to container, 4 streams", "≥ 0.97 of by hand", 4, local},
		{"TCP, published port from another machine, one stream", "≥ 0.95 of by hand", 1, published},
	} {
		if err := m.measure(r, min(o.runs, 15)); err != nil {
			return err
		}
	}
	return nil
}

// transfer is one kind of measurement over several paths.
type transfer struct {
	what, target string
	streams      int
	paths        []path
}

// measure takes the paths in turn, so that the machine's moods hit all alike.
func (m transfer) measure(r *report, rounds int) error {
	got, spent := make([][]float64, len(m.paths)), make([][]float64, len(m.paths))
	for range rounds {
		for i, p := range m.paths {
			v, each, err := p.run(m.streams)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", m.what, p.who, err)
			}
			got[i], spent[i] = append(got[i], v), append(spent[i], each)
		}
	}
	for _, row := range []struct {
		unit   string
		values [][]float64
	}{{"Gbit/s", got}, {"Gbit per processor second", spent}} {
		for i, p := range m.paths {
			// Now and then iperf3's receiver does not tell what it got, which is no measurement.
			told := slices.DeleteFunc(row.values[i], func(v float64) bool { return v == 0 })
			if lost := rounds - len(told); lost > 0 {
				r.note("%s (%s), %s: %d of %d runs, in which iperf3 did not tell what came through", m.what, row.unit, p.who, lost, rounds)
			}
			if len(told) <= rounds/2 {
				continue
			}
			slices.Sort(told)
			r.rates(m.what+" ("+row.unit+")", m.target, p.who, told)
		}
	}
	return nil
}

// run sends for a second and gives gigabits per second, and for each second of a processor that both ends
// used: the latter does not depend on what else the machine does meanwhile, nor on which processors the ends came to.
func (p path) run(streams int) (rate, each float64, err error) {
	server := exec.Command("nsenter", "-t", p.server, "-n", "iperf3", "-s", "-1", "-p", "5201")
	if err := server.Start(); err != nil {
		return 0, 0, err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	var out []byte
	for range 50 { // until the server listens
		out, err = exec.Command("nsenter", "-t", p.client, "-n", "iperf3", "-c", p.addr, "-p", strconv.Itoa(p.port),
			"-t", "1", "-P", strconv.Itoa(streams), "-J", "--connect-timeout", "2000").Output()
		if err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("iperf3: %w: %s", err, out)
	}
	var res struct {
		End struct {
			Received struct {
				BPS float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Percent struct {
				Client float64 `json:"host_total"`
				Server float64 `json:"remote_total"`
			} `json:"cpu_utilization_percent"`
		} `json:"end"`
	}
	err = json.Unmarshal(out, &res)
	rate = res.End.Received.BPS / 1e9
	return rate, rate / (max(1, res.End.Percent.Client+res.End.Percent.Server) / 100), err
}

// networkChanges measures connecting a running container, and the name server.
func networkChanges(r *report, o options, engines []*engine, _, _ string) error {
	for _, e := range engines {
		if e.name == "podman" {
			continue
		}
		for _, args := range [][]string{{"network", "create", "bench-n"}, {"network", "create", "bench-m"},
			{"run", "-d", "--name", "bench-x", "--network", "bench-n", image, "/bin/sleep", "3600"}} {
			if _, err := e.run(args...); err != nil {
				return err
			}
		}
		defer func() {
			e.run("rm", "-f", "bench-x")
			e.run("network", "rm", "bench-n", "bench-m")
		}()
	}
	var used []*engine
	var fs []func() error
	for _, e := range engines {
		if e.name != "podman" {
			used = append(used, e)
			fs = append(fs, func() error {
				if _, err := e.run("network", "connect", "bench-m", "bench-x"); err != nil {
					return err
				}
				_, err := e.run("network", "disconnect", "bench-m", "bench-x")
				return err
			})
		}
	}
	got, err := timed(o.runs, fs)
	if err != nil {
		return err
	}
	for i, e := range used {
		r.add("`network connect` and `disconnect` of a running container", "", e.name, got[i])
	}
	if err := attaches(r, o, used, ""); err != nil {
		return err
	}
	if err := attachesAmongPorts(r, o, used); err != nil {
		return err
	}
	for _, e := range used {
		if err := names(r, e); err != nil {
			r.note("%s, name server: %v", e.name, err)
		}
	}
	return nil
}

// names asks a container's name server for its own name for two seconds: with one question on its way for the latency, and
// with 32 for what a processor's second is good for.
func names(r *report, e *engine) error {
	pid, err := e.run("inspect", "-f", "{{.State.Pid}}", "bench-x")
	if err != nil {
		return err
	}
	c, err := dialIn("/proc/"+pid+"/ns/net", "127.0.0.11:53")
	if err != nil {
		return err
	}
	defer c.Close()
	one, _, err := ask(c, 1, time.Second)
	if err != nil {
		return err
	}
	slices.Sort(one)
	p99 := one[len(one)*99/100]
	r.add("DNS, p99 of one question after the other", "< 1 ms", e.name, []time.Duration{p99})
	before := cpuSeconds(e)
	_, n, err := ask(c, 32, 2*time.Second)
	if err != nil {
		return err
	}
	if used := cpuSeconds(e) - before; used > 0 {
		r.rate("DNS, answers per second of the daemon's processor time", "≥ 30,000", e.name, float64(n)/used)
	}
	return nil
}

func cpuSeconds(e *engine) float64 {
	if e.daemon == nil {
		return 0
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.daemon.Process.Pid))
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

// ask keeps some questions for bench-x on their way, and gives the latencies and the number of answers.
func ask(c net.Conn, ahead int, d time.Duration) (took []time.Duration, n int, err error) {
	q := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7, 'b', 'e', 'n', 'c', 'h', '-', 'x', 0, 0, 1, 0, 1}
	var sent [1 << 16]time.Time
	id := uint16(0)
	send := func() error {
		id++
		binary.BigEndian.PutUint16(q, id)
		sent[id] = time.Now()
		_, err := c.Write(q)
		return err
	}
	for range ahead {
		if err := send(); err != nil {
			return nil, 0, err
		}
	}
	buf := make([]byte, 2048)
	for end := time.Now().Add(d); time.Now().Before(end); {
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Read(buf); err != nil {
			return took, n, err
		}
		if buf[7] == 0 {
			return took, n, fmt.Errorf("an answer without an address (code %d)", buf[3]&15)
		}
		took = append(took, time.Since(sent[binary.BigEndian.Uint16(buf)]))
		n++
		if err := send(); err != nil {
			return took, n, err
		}
	}
	for range ahead { // what is still on its way
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		c.Read(buf)
	}
	return took, n, nil
}

// dialIn opens a UDP socket in a network namespace.
func dialIn(ns, addr string) (c net.Conn, err error) {
	f, err := os.Open(ns)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err == nil {
			c, err = net.Dial("udp4", addr)
		}
	}()
	<-done
	return c, err
}
