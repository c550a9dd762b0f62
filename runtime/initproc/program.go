package initproc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func envValue(env []string, key string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(env[i], "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

// completeEnv adds HOME, from the container's passwd file, when the configuration has none.
func completeEnv(p *specs.Process) {
	if home, ok := envValue(p.Env, "HOME"); !ok || home == "" {
		p.Env = append(p.Env, "HOME="+homeOf(p.User.UID))
	}
}

// maxPasswd bounds how much of the container's passwd file is read.
const maxPasswd = 4 << 20

func homeOf(uid uint32) string {
	f, err := os.OpenFile("/etc/passwd", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "/"
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "/"
	}
	lines := bufio.NewScanner(io.LimitReader(f, maxPasswd))
	want := strconv.FormatUint(uint64(uid), 10)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) >= 6 && fields[2] == want && strings.HasPrefix(fields[5], "/") {
			return fields[5]
		}
	}
	return "/"
}

// lookPath finds the program as a shell would. Its errors have the wording of Go's os/exec, which clients of the Docker
// API match on to tell 126 and 127.
func lookPath(p *specs.Process) (string, error) {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		file := name
		if !path.IsAbs(file) {
			file = path.Join(p.Cwd, file)
		}
		if err := executable(file); err != nil {
			return "", programErr(err, name)
		}
		return file, nil
	}
	search, ok := envValue(p.Env, "PATH")
	if !ok {
		search = defaultPath
	}
	denied := false
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		if !path.IsAbs(dir) {
			dir = path.Join(p.Cwd, dir)
		}
		err := executable(path.Join(dir, name))
		if err == nil {
			return path.Join(dir, name), nil
		}
		denied = denied || errors.Is(err, fs.ErrPermission)
	}
	if denied {
		return "", errs.New(errs.Forbidden, "exec: %q: permission denied", name)
	}
	return "", errs.New(errs.NotFound, "exec: %q: executable file not found in $PATH", name)
}

func executable(file string) error {
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("is a directory: %w", fs.ErrPermission)
	case st.Mode()&0o111 == 0:
		return fs.ErrPermission
	}
	return nil
}

func programErr(err error, name string) error {
	kind := errs.Invalid
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		kind = errs.NotFound
	case errors.Is(err, fs.ErrPermission):
		kind = errs.Forbidden
	}
	return errs.New(kind, "exec: %q: %w", name, err)
}

// execErr explains what execve(2) said.
func execErr(program string, err error) error {
	hint, kind := "", errs.Forbidden
	switch err {
	case unix.ENOENT:
		kind, hint = errs.NotFound, "; the program is there, but the interpreter or dynamic loader it names is not"
	case unix.ENOEXEC:
		if hint = foreignProgram(program); hint == "" {
			hint = "; it is no program of this machine's architecture, or a script without a #! line"
		}
	case unix.EACCES:
		hint = "; it is not executable for the container's user, or lies on a mount with noexec"
	case unix.E2BIG:
		kind, hint = errs.Invalid, "; the arguments and environment are too large"
	case unix.ENOMEM, unix.EAGAIN:
		kind = errs.Exhausted
	}
	return errs.As(kind, fmt.Errorf("exec %s: %w%s", program, err, hint))
}

// elfMachines are the numbers that an ELF file has for its processor, and QEMU's names of those. The package
// debug/elf would make every supervisor larger.
var elfMachines = map[uint16]string{3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}

// foreignProgram explains that a program, or the interpreter that a script names, is for another processor; "" when it is not,
// or cannot be read.
func foreignProgram(program string) string {
	head := headOf(program)
	if line, script := strings.CutPrefix(head, "#!"); script {
		line, _, _ = strings.Cut(line, "\n")
		if words := strings.Fields(line); len(words) > 0 {
			program = words[0]
			head = headOf(program)
		}
	}
	if len(head) < 20 || !strings.HasPrefix(head, "\x7fELF") {
		return ""
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 {
		order = binary.BigEndian
	}
	name := elfMachines[order.Uint16([]byte(head[18:20]))]
	var host unix.Utsname
	if name == "" || unix.Uname(&host) != nil || name == unix.ByteSliceToString(host.Machine[:]) {
		return ""
	}
	if name == "ppc64" && head[5] == 1 {
		name = "ppc64le"
	}
	return fmt.Sprintf("; %s is a program for %s processors, and the kernel of this %s machine has no handler qemu-%s for such: use an image for this machine's platform, "+
		"or install QEMU's user emulation (Debian: qemu-user-static and binfmt-support)", program, name, unix.ByteSliceToString(host.Machine[:]), name)
}

// headOf is the beginning of a file, "" when it cannot be read.
func headOf(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 256)
	n, _ := f.Read(b)
	return string(b[:n])
}
