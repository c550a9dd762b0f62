// Command guest is the first process of the test's virtual machine: it mounts what a small system has, runs the steps of
// plan.json one after the other, tells the host what they print on a virtio port, and turns the machine off. It must
// not set up anything that Shoal is to set up itself, such as controllers of cgroup v2.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/vm/plan"
)

func main() {
	if len(os.Args) > 1 {
		work(os.Args[1])
		return
	}
	if err := initialize(); err != nil {
		fmt.Println("guest:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// initialize brings the system up, leaves the steps to a child, and buries whoever ends.
func initialize() error {
	text, err := os.ReadFile("/plan.json")
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	var g guest
	if err := g.mountAll("", []mount{{"proc", "/proc", "proc", 0, ""}, {"sysfs", "/sys", "sysfs", 0, ""}, {"devtmpfs", "/dev", "devtmpfs", 0, ""}}); err != nil {
		return err
	}
	for _, m := range p.Modules {
		if err := load(m); err != nil {
			return err
		}
	}
	if err := g.toRoot(p.Root); err != nil {
		return err
	}
	if p.Init != "" {
		return fmt.Errorf("%s: %w", p.Init, unix.Exec(p.Init, []string{p.Init}, os.Environ()))
	}
	if err := g.system(p); err != nil {
		return err
	}
	child := exec.Command("/proc/self/exe", string(text))
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == child.Process.Pid || err != nil && err != unix.EINTR {
			return err
		}
	}
}

// work runs the steps.
func work(text string) {
	port, err := os.OpenFile("/dev/vport0p1", os.O_WRONLY, 0)
	if err != nil {
		fmt.Println("guest:", err)
		return
	}
	g := guest{port: json.NewEncoder(port)}
	var p plan.Plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		g.tell(plan.Event{Fail: err.Error()})
		return
	}
	for _, s := range p.Steps {
		g.run(s)
	}
}

type guest struct {
	mu   sync.Mutex
	port *json.Encoder
}

func (g *guest) tell(e plan.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.port.Encode(e)
}

type mount struct {
	from, at, kind string
	flags          uintptr
	data           string
}

func (g *guest) mountAll(root string, list []mount) error {
	for _, m := range list {
		os.MkdirAll(root+m.at, 0o755)
		if err := unix.Mount(m.from, root+m.at, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s at %s as %s with %q: %w", m.from, m.at, m.kind, m.data, err)
		}
	}
	return nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// toRoot makes the disk the root, as switch_root does: the initial file system cannot be unmounted, so it is covered, since
// pivot_root within containers needs a root that is a mount of its own.
func (g *guest) toRoot(device string) error {
	if err := await(device); err != nil {
		return err
	}
	if err := g.mountAll("", []mount{{device, "/disk", "ext4", unix.MS_NOATIME, ""}}); err != nil {
		return err
	}
	for _, at := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(at, "/disk"+at, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", at, err)
		}
	}
	if err := unix.Chdir("/disk"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	return errors.Join(unix.Chroot("."), unix.Chdir("/"))
}

// await waits for a device that the kernel is about to find.
func await(device string) error {
	for range 500 {
		if _, err := os.Stat(device); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the kernel found no %s", device)
}

func (g *guest) system(p plan.Plan) error {
	os.Setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	os.Setenv("HOME", "/root")
	if err := g.mountAll("", []mount{
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
		{"shm", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	}); err != nil {
		return err
	}
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		os.Symlink("/proc/self/fd"+target, "/dev/"+name)
	}
	if err := loopback(); err != nil {
		return err
	}
	// What is optional on hosts, too: AppArmor's and the tracers' files.
	unix.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, "")
	unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "")
	unix.Sethostname([]byte("guest"))
	for _, d := range p.Disks {
		if err := await(d.Device); err != nil {
			return err
		}
		exec.Command("modprobe", d.Type).Run() // built in, or mount says that it is missing
		if err := g.mountAll("", []mount{{d.Device, d.At, d.Type, unix.MS_NOATIME, d.Options}}); err != nil {
			return err
		}
	}
	return nil
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// run runs one step and tells its lines and its end.
func (g *guest) run(s plan.Step) {
	start := time.Now()
	end := func(code int) {
		g.tell(plan.Event{Step: s.Name, Exit: &code, Seconds: time.Since(start).Seconds()})
	}
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Dir, cmd.Env = s.Dir, append(os.Environ(), s.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, in, err := os.Pipe()
	if err != nil {
		g.tell(plan.Event{Fail: err.Error()})
		return
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		g.tell(plan.Event{Step: s.Name, Line: err.Error()})
		end(127)
		return
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		r := bufio.NewReader(out)
		for {
			line, err := r.ReadString('\n')
			if line != "" {
				g.tell(plan.Event{Step: s.Name, Line: strings.TrimRight(line, "\n")})
			}
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
					g.tell(plan.Event{Step: s.Name, Line: "read output: " + err.Error()})
				}
				return
			}
		}
	}()
	timer := time.AfterFunc(time.Duration(s.Seconds)*time.Second, func() {
		cmd.Process.Signal(syscall.SIGQUIT) // a Go program writes its stacks
		time.AfterFunc(3*time.Second, func() { cmd.Process.Kill() })
	})
	err = cmd.Wait()
	timer.Stop()
	// What the step left running may hold the pipe; its output is not waited for.
	select {
	case <-read:
	case <-time.After(2 * time.Second):
		left, _ := filepath.Glob("/proc/[0-9]*/exe")
		g.tell(plan.Event{Step: s.Name, Line: fmt.Sprintf("its output is still held by a process; %d run", len(left))})
	}
	end(cmd.ProcessState.ExitCode())
}
