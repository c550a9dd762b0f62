//go:build kernel

package seccomp

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/runtime/seccomp/profile"
)

// A loaded filter cannot be taken off: each case runs in a process of its own, this test binary again.
const caseEnv = "SECCOMP_TEST_CASE"

func TestMain(m *testing.M) {
	if c := os.Getenv(caseEnv); c != "" {
		runtime.LockOSThread()
		if err := cases[c](); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type failure string

func (f failure) Error() string { return string(f) }

var cases = map[string]func() error{
	"errno": func() error {
		if err := loadProfile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdirat", "mkdir"}, Action: specs.ActErrno, ErrnoRet: p(uint(unix.EXDEV))},
			{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 0xffffffff00000001}}},
		}}); err != nil {
			return err
		}
		if err := unix.Mkdir("/x", 0); err != unix.EXDEV {
			return failure("mkdir: " + err.Error())
		}
		if _, _, e := unix.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0); e != 0 {
			return failure("personality: the upper half was not looked at")
		}
		return nil
	},
	"default profile": func() error {
		pr, err := profile.For(nil)
		if err != nil {
			return err
		}
		if err := loadProfile(pr); err != nil {
			return err
		}
		if err := unix.Unmount("/", 0); err != unix.EPERM {
			return failure("umount: " + err.Error())
		}
		if _, _, e := unix.Syscall(5000, 0, 0, 0); e != unix.ENOSYS {
			return failure("a new call: " + e.Error())
		}
		out, err := exec.Command("/bin/sh", "-c", "echo it works | cat").Output()
		if err != nil || string(out) != "it works\n" {
			return failure("the shell does not work under it: " + string(out))
		}
		return nil
	},
	"notify": func() error {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdirat", "mkdir"}, Action: specs.ActNotify}}})
		if err != nil {
			return err
		}
		fd, err := f.Load()
		if err != nil {
			return err
		}
		if fd < 0 {
			return failure("no listener")
		}
		return nil
	},
	"kill": func() error {
		if err := loadProfile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdirat", "mkdir"}, Action: specs.ActKillProcess}}}); err != nil {
			return err
		}
		_ = unix.Mkdir("/x", 0)
		return nil
	},
}

func loadProfile(pr *specs.LinuxSeccomp) error {
	f, err := Compile(pr)
	if err != nil {
		return err
	}
	f.Flags |= unix.SECCOMP_FILTER_FLAG_TSYNC // the Go runtime's other threads run the child, too
	_, err = f.Load()
	return err
}

func TestKernelLoad(t *testing.T) {
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			c := exec.Command("/proc/self/exe")
			c.Env = append(os.Environ(), caseEnv+"="+name)
			out, err := c.CombinedOutput()
			if name == "kill" {
				if err == nil || !strings.Contains(err.Error(), "bad system call") {
					t.Errorf("%v: %s", err, out)
				}
				return
			}
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
