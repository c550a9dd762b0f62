//go:build kernel

package network

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestMain runs this package's tests in network and mount namespaces of their own, which play the host: the machine's
// network is never touched and nothing can stay behind.
func TestMain(m *testing.M) {
	const mark = "SHOAL_TEST_IN_NAMESPACE"
	if os.Getenv(mark) != "" {
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		syscall.Mount("sysfs", "/sys", "sysfs", 0, "")
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), mark+"=1")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}
