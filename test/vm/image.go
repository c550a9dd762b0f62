//go:build kernel

package vm

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/shoalhq/shoal/test/vm/plan"
)

// repository is the directory of the module.
func repository() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}

// workDir is where images, logs and the kernel lie between runs; `make clean` removes it.
func workDir(t testing.TB) string {
	dir := filepath.Join(repository(), "bin", "vm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a program of the host to its end.
func run(dir string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		said := ""
		if x := new(exec.ExitError); errors.As(err, &x) {
			said = string(x.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out, said)
	}
	return strings.TrimSpace(string(out)), nil
}

// kernelDir has the kernel's package unpacked, with the lists that modprobe needs. It is fetched once; where Debian's
// archive cannot be reached the test is skipped.
func kernelDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(workDir(t), "kernel")
	if err := fetchKernel(workDir(t), dir); err != nil {
		t.Skip("no kernel for the virtual machine:", err)
	}
	return dir
}

func fetchKernel(work, dir string) error {
	if len(glob(dir+"/lib/modules/*/modules.dep")) == 1 {
		return nil
	}
	depends, err := run(work, "apt-cache", "depends", "linux-image-cloud-amd64")
	if err != nil {
		return err
	}
	var name string
	for line := range strings.Lines(depends) {
		if f := strings.Fields(line); len(f) == 2 && strings.HasPrefix(f[1], "linux-image-") && !strings.HasSuffix(f[1], "-unsigned") {
			name = f[1]
			break
		}
	}
	if name == "" {
		return fmt.Errorf("linux-image-cloud-amd64 depends on no kernel: %s", depends)
	}
	if _, err := run(work, "apt-get", "download", "-qq", name); err != nil {
		return err
	}
	debs := glob(filepath.Join(work, name+"_*.deb"))
	if len(debs) == 0 {
		return fmt.Errorf("apt-get download %s left no package", name)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if _, err := run(work, "dpkg", "-x", debs[len(debs)-1], dir); err != nil {
		return err
	}
	_, err = run(work, "busybox", "depmod", "-b", dir, filepath.Base(glob(dir + "/lib/modules/*")[0]))
	return err
}

func glob(pattern string) []string {
	m, _ := filepath.Glob(pattern)
	return m
}

func kernelImage(t testing.TB) string { return glob(kernelDir(t) + "/boot/vmlinuz-*")[0] }

// early are the modules without which the guest cannot reach its disk and the host.
var early = []string{"virtio_pci", "virtio_blk", "virtio_console", "virtio-rng"}

// writeInitrd makes the initial file system: our guest program, the early modules in order, and the plan.
func writeInitrd(t testing.TB, path string, p *plan.Plan) error {
	guest := filepath.Join(workDir(t), "guest")
	if _, err := run(repository(), "go", "build", "-ldflags", "-s -w", "-o", guest, "./test/vm/guest"); err != nil {
		return err
	}
	modules := glob(kernelDir(t) + "/lib/modules/*")[0]
	paths, err := closure(modules, early)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	records := []cpio.Record{cpio.StaticFile("init", string(program), 0o755), cpio.Directory("disk", 0o755),
		cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755), cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1)}
	for _, m := range paths {
		b, err := os.ReadFile(filepath.Join(modules, m))
		if err != nil {
			return err
		}
		records = append(records, cpio.StaticFile(filepath.Base(m), string(b), 0o644))
		p.Modules = append(p.Modules, "/"+filepath.Base(m))
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	records = append(records, cpio.StaticFile("plan.json", string(text), 0o644))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	if err := cpio.WriteRecords(w, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(w)
}

// closure gives the files of modules and what they depend on, in the order of loading.
func closure(modules string, names []string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	deps := map[string][]string{}
	byName := map[string]string{}
	for line := range strings.Lines(string(text)) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		deps[file] = strings.Fields(rest)
		byName[strings.TrimSuffix(filepath.Base(file), ".ko")] = file
	}
	var out []string
	seen := map[string]bool{}
	var add func(file string)
	add = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, d := range deps[file] {
			add(d)
		}
		out = append(out, file)
	}
	for _, n := range names {
		if byName[n] == "" {
			return nil, fmt.Errorf("the kernel has no module %s", n)
		}
		add(byName[n])
	}
	return out, nil
}

// programs of this machine that the tests use as witnesses. Those that are missing make tests in the guest skip. The shell is
// not busybox's, which would take its own ip and the like before those that the path names.
var programs = []string{"sh", "busybox", "nft", "ip", "bridge", "ss", "nsenter", "ps", "strace", "crun", "runc", "skopeo", "docker-registry",
	"conntrack", "docker", "tar", "btrfs", "mkfs.btrfs", "iperf3"}

// makeRoot makes the image of a root file system with the kernel's modules, this machine's witnesses, the sources with
// their test data at the path where they lie here, the programs of bin, and what fill adds.
func makeRoot(t testing.TB, image string, fill func(root string) error) error {
	root, err := os.MkdirTemp(workDir(t), "root-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "root", "data", "var/lib", "var/log", "etc", "usr/bin", "usr/sbin", "usr/lib", "usr/local/bin", "usr/lib64"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil {
			return err
		}
	}
	if err := copyPrograms(root); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", "group": "root:x:0:\nnogroup:x:65534:\n",
		"hosts": "127.0.0.1 localhost\n::1 localhost\n", "resolv.conf": "nameserver 127.0.0.1\n", "hostname": "guest\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
		"subuid":        "root:100000:65536\n", "subgid": "root:100000:65536\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// The kernel asks for modules by this path.
	if err := os.Symlink("../bin/busybox", filepath.Join(root, "usr/sbin/modprobe")); err != nil {
		return err
	}
	if _, err := run("", "cp", "-a", kernelDir(t)+"/lib/modules", root+"/usr/lib/"); err != nil {
		return err
	}
	if err := copySources(root); err != nil {
		return err
	}
	if err := fill(root); err != nil {
		return err
	}
	return makeDisk(image, "ext4", "3G", root)
}

// makeDisk makes an image of a new file system with the files of a directory, which only ext4 can take ("" for none).
func makeDisk(image, kind, size, from string) error {
	os.Remove(image)
	if _, err := run("", "truncate", "-s", size, image); err != nil {
		return err
	}
	args := []string{"-q"}
	switch {
	case kind == "ext4" && from != "":
		args = append(args, "-F", "-d", from)
	case kind == "ext4":
		args = append(args, "-F", "-O", "quota,project")
	}
	_, err := run("", "mkfs."+kind, append(args, image)...)
	return err
}

// copyPrograms copies the programs; busybox stands in for the rest of a system's own.
func copyPrograms(root string) error {
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			if err := copyProgram(root, path); err != nil {
				return err
			}
		}
	}
	applets, err := run("", "busybox", "--list")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(applets) {
		if slices.Contains(programs, name) {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "usr/bin", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// copyProgram copies a program and the shared libraries that it names to the same paths.
func copyProgram(root, path string) error {
	if err := copyFile(root, path); err != nil {
		return err
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil // a script
	}
	defer f.Close()
	if f.Section(".interp") == nil {
		return nil
	}
	out, err := run("", "ldd", path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				if err := copyFile(root, word); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// copyFile copies what a path leads to, below root; /bin and the like are links there.
func copyFile(root, path string) error {
	for _, d := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(path, d) {
			path = "/usr" + path
		}
	}
	to := filepath.Join(root, path)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	_, err := run("", "cp", "-L", path, to)
	return err
}

// copySources copies what git knows or would take, and bin.
func copySources(root string) error {
	repo := repository()
	list, err := run(repo, "git", "ls-files", "-co", "--exclude-standard")
	if err != nil {
		return err
	}
	// Tests look for files beside themselves; those that look for sources look for Go files.
	var keep bytes.Buffer
	for name := range strings.Lines(list) {
		if _, err := os.Lstat(filepath.Join(repo, strings.TrimSpace(name))); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		keep.WriteString(name)
	}
	keep.WriteString("\nbin/shoal\nbin/shoald\nbin/shoal-runtime\n")
	to := root + repo
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", `tar -cf - -T - | tar -xf - -C "$1"`, "sh", to)
	cmd.Dir, cmd.Stdin = repo, &keep
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the sources: %w: %s", err, out)
	}
	return nil
}
