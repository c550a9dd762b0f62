//go:build kernel

package vm

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/vm/plan"
)

var processors = flag.Int("cpus", 2, "processors of the machine")

// Disk is a file of the host that the guest has as a disk.
type Disk struct {
	File              string
	Type, Options, At string // how the guest mounts it
	Keep              bool   // what is written stays in the file; else it is forgotten with the machine
}

// Config is one boot.
type Config struct {
	Name   string // of its files below bin/vm
	Root   string // image of the root file system
	Disks  []Disk
	Init   string
	Steps  []plan.Step
	Memory int // MiB
}

// Machine is a running guest.
type Machine struct {
	Events  <-chan plan.Event // closed when the machine is off
	console string
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Boot starts a machine. The test's end kills it.
func Boot(t testing.TB, c Config) *Machine {
	t.Helper()
	dir := t.TempDir()
	m := &Machine{console: filepath.Join(workDir(t), c.Name+".console"), ended: make(chan struct{})}
	p := plan.Plan{Root: "/dev/vda", Init: c.Init, Steps: c.Steps}
	args := []string{"-M", "q35", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none",
		"-smp", strconv.Itoa(*processors), "-m", strconv.Itoa(c.Memory),
		"-kernel", kernelImage(t), "-initrd", dir + "/initrd",
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=on tsc=reliable no_timer_check",
		"-serial", "file:" + m.console,
		"-device", "virtio-serial-pci", "-chardev", "socket,id=events,path=" + dir + "/events,server=on,wait=off",
		"-device", "virtserialport,chardev=events",
		"-device", "virtio-rng-pci",
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file=" + c.Root}
	args = append(args, accelerator(t)...)
	for i, d := range c.Disks {
		args = append(args, "-drive", fmt.Sprintf("if=virtio,format=raw,snapshot=%s,cache=writeback,file=%s", map[bool]string{true: "off", false: "on"}[d.Keep], d.File))
		p.Disks = append(p.Disks, plan.Disk{Device: "/dev/vd" + string(rune('b'+i)), Type: d.Type, Options: d.Options, At: d.At})
	}
	if err := writeInitrd(t, dir+"/initrd", &p); err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.Command("qemu-system-x86_64", args...)
	var said strings.Builder
	m.cmd.Stderr = &said
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { m.cmd.Wait(); close(m.ended) }()
	t.Cleanup(m.Kill)
	events, err := m.connect(dir + "/events")
	if err != nil {
		t.Fatalf("%v; qemu said: %s", err, said.String())
	}
	m.Events = events
	return m
}

// connect waits for QEMU's socket and reads the guest's lines from it.
func (m *Machine) connect(path string) (<-chan plan.Event, error) {
	var conn net.Conn
	for range 500 {
		var err error
		if conn, err = net.Dial("unix", path); err == nil {
			break
		}
		select {
		case <-m.ended:
			return nil, fmt.Errorf("qemu ended at once")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if conn == nil {
		return nil, fmt.Errorf("qemu opened no socket")
	}
	events := make(chan plan.Event, 64)
	go func() {
		defer close(events)
		defer conn.Close()
		in := bufio.NewReader(conn)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return // the machine is off
			}
			var e plan.Event
			if json.Unmarshal(line, &e) != nil {
				e = plan.Event{Line: string(line)}
			}
			events <- e
		}
	}()
	return events, nil
}

// Kill takes the power away.
func (m *Machine) Kill() {
	m.cmd.Process.Kill()
	<-m.ended
}

// Console is the end of what the kernel printed.
func (m *Machine) Console() string {
	b, _ := os.ReadFile(m.console)
	return string(b[max(0, len(b)-6000):])
}

// accelerator decides once by how fast a kernel without an initial file system comes to its panic: that /dev/kvm exists says
// nothing; inside a virtual machine it may be slower than emulation by orders of magnitude.
func accelerator(t testing.TB) []string {
	return calibrate(t)
}

var (
	calibrated  sync.Once
	accelerated bool
)

func calibrate(t testing.TB) []string {
	calibrated.Do(func() {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return
		}
		f.Close()
		cmd := exec.Command("qemu-system-x86_64", "-M", "q35", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none",
			"-accel", "kvm", "-cpu", "host", "-m", "256", "-kernel", kernelImage(t), "-append", "panic=-1 quiet")
		start := time.Now()
		if cmd.Start() != nil {
			return
		}
		timer := time.AfterFunc(3*time.Second, func() { cmd.Process.Kill() })
		accelerated = cmd.Wait() == nil && timer.Stop()
		t.Logf("KVM is worth using: %v (a kernel's start and panic took %v; 3 s are allowed)", accelerated, time.Since(start).Round(time.Millisecond))
	})
	if accelerated {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
}
