package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func fileTools() map[string]tool {
	return map[string]tool{"ln": ln, "stat": stat, "chown": chown, "df": df, "du": du, "dd": dd, "readlink": readlink, "realpath": readlink,
		"basename": basename, "dirname": dirname, "mkfifo": mkfifo, "rmdir": rmdir, "pwd": pwd, "test": test, "[": test, "sync": syncDisks,
		"truncate": truncate, "which": which, "mount": mount, "umount": umount}
}

func filesBelow(roots []string) ([]string, error) {
	if len(roots) == 0 {
		roots = []string{"."}
	}
	var out []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				out = append(out, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// follow waits for more with inotify, so that nothing turns while nothing happens.
func follow(w io.Writer, f *os.File) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, f.Name(), unix.IN_MODIFY); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		if _, err := unix.Read(fd, buf); err != nil && err != unix.EINTR {
			return err
		}
	}
}

func ln(c *call) error {
	flags, rest, err := c.options("sfn", 0)
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		rest = append(rest, filepath.Base(rest[0]))
	}
	if len(rest) != 2 {
		return errors.New("want TARGET NAME")
	}
	target, name := rest[0], rest[1]
	if st, err := os.Stat(name); err == nil && st.IsDir() && flags['n'] == "" {
		name = filepath.Join(name, filepath.Base(target))
	}
	if flags['f'] != "" {
		os.Remove(name)
	}
	if flags['s'] != "" {
		return os.Symlink(target, name)
	}
	return os.Link(target, name)
}

func stat(c *call) error {
	flags, files, err := c.options("c:L", 0)
	if err != nil {
		return err
	}
	for _, name := range files {
		var st unix.Stat_t
		if flags['L'] != "" {
			err = unix.Stat(name, &st)
		} else {
			err = unix.Lstat(name, &st)
		}
		if err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		mtime := time.Unix(st.Mtim.Unix())
		if f := flags['c']; f != "" {
			fmt.Fprintln(c.out, strings.NewReplacer("%n", name, "%s", fmt.Sprint(st.Size), "%a", fmt.Sprintf("%o", st.Mode&0o7777), "%A", info.Mode().String(),
				"%u", fmt.Sprint(st.Uid), "%g", fmt.Sprint(st.Gid), "%U", userName(int(st.Uid)), "%G", groupName(int(st.Gid)), "%i", fmt.Sprint(st.Ino),
				"%h", fmt.Sprint(st.Nlink), "%Y", fmt.Sprint(st.Mtim.Sec), "%y", mtime.Format("2006-01-02 15:04:05.000000000 -0700"), "%d", fmt.Sprint(st.Dev),
				"%b", fmt.Sprint(st.Blocks), "%F", kindOf(info.Mode())).Replace(f))
			continue
		}
		fmt.Fprintf(c.out, "  File: %s\n  Size: %d\tBlocks: %d\t%s\nDevice: %d,%d\tInode: %d\tLinks: %d\nAccess: (%04o/%s)\tUid: (%d/%s)\tGid: (%d/%s)\nModify: %s\n",
			name, st.Size, st.Blocks, kindOf(info.Mode()), unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino, st.Nlink, st.Mode&0o7777, info.Mode(),
			st.Uid, userName(int(st.Uid)), st.Gid, groupName(int(st.Gid)), mtime.Format("2006-01-02 15:04:05.000000000 -0700"))
	}
	return nil
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "regular file"
	case m.IsDir():
		return "directory"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeCharDevice != 0:
		return "character special file"
	case m&fs.ModeDevice != 0:
		return "block special file"
	case m&fs.ModeNamedPipe != 0:
		return "fifo"
	}
	return "socket"
}

func userName(id int) string {
	if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
		return u.Username
	}
	return strconv.Itoa(id)
}

func groupName(id int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
		return g.Name
	}
	return strconv.Itoa(id)
}

func chown(c *call) error {
	flags, rest, err := c.options("Rhv", 0)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return errors.New("want OWNER[:GROUP] FILE...")
	}
	owner, group, _ := strings.Cut(rest[0], ":")
	uid, gid := -1, -1
	if owner != "" {
		if uid, err = strconv.Atoi(owner); err != nil {
			u, err := user.Lookup(owner)
			if err != nil {
				return err
			}
			uid, _ = strconv.Atoi(u.Uid)
		}
	}
	if group != "" {
		if gid, err = strconv.Atoi(group); err != nil {
			g, err := user.LookupGroup(group)
			if err != nil {
				return err
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	for _, name := range rest[1:] {
		err := os.Lchown(name, uid, gid)
		if err == nil && flags['R'] != "" {
			err = filepath.WalkDir(name, func(path string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Lchown(path, uid, gid)
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// human writes a size short: 1.5M.
func human(n int64) string {
	f, unit := float64(n), 0
	for f >= 1024 && unit < 6 {
		f, unit = f/1024, unit+1
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + "BKMGTPE"[unit:unit+1]
}

func df(c *call) error {
	flags, rest, err := c.options("hk", 0)
	if err != nil {
		return err
	}
	type line struct{ source, point string }
	var list []line
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for l := range strings.Lines(string(data)) {
		if f := strings.Fields(l); len(f) > 1 {
			list = append(list, line{f[0], f[1]})
		}
	}
	if len(rest) > 0 {
		list = nil
		for _, p := range rest {
			list = append(list, line{"-", p})
		}
	}
	size := func(blocks uint64, unit int64) string {
		if flags['h'] != "" {
			return human(int64(blocks) * unit)
		}
		return strconv.FormatInt(int64(blocks)*unit/1024, 10)
	}
	fmt.Fprintf(c.out, "%-20s %12s %12s %12s %5s %s\n", "Filesystem", map[bool]string{true: "Size", false: "1K-blocks"}[flags['h'] != ""], "Used", "Available", "Use%", "Mounted on")
	for _, l := range list {
		var st unix.Statfs_t
		if err := unix.Statfs(l.point, &st); err != nil || st.Blocks == 0 {
			if len(rest) > 0 && err != nil {
				return &os.PathError{Op: "statfs", Path: l.point, Err: err}
			}
			continue
		}
		used := st.Blocks - st.Bfree
		percent := 0
		if total := used + st.Bavail; total > 0 {
			percent = int((used*100 + total - 1) / total)
		}
		fmt.Fprintf(c.out, "%-20s %12s %12s %12s %4d%% %s\n", l.source, size(st.Blocks, st.Bsize), size(used, st.Bsize), size(st.Bavail, st.Bsize), percent, l.point)
	}
	return nil
}

func du(c *call) error {
	flags, rest, err := c.options("shkab", 0)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		rest = []string{"."}
	}
	show := func(n int64, path string) {
		if flags['h'] != "" {
			fmt.Fprintf(c.out, "%s\t%s\n", human(n), path)
		} else {
			fmt.Fprintf(c.out, "%d\t%s\n", (n+1023)/1024, path)
		}
	}
	var walk func(path string) int64
	walk = func(path string) int64 {
		info, err := os.Lstat(path)
		if err != nil {
			fmt.Fprintln(c.err, "du:", err)
			return 0
		}
		sum := info.Sys().(*syscall.Stat_t).Blocks * 512
		if !info.IsDir() {
			if flags['a'] != "" {
				show(sum, path)
			}
			return sum
		}
		list, err := os.ReadDir(path)
		if err != nil {
			fmt.Fprintln(c.err, "du:", err)
		}
		for _, e := range list {
			sum += walk(filepath.Join(path, e.Name()))
		}
		if flags['s'] == "" {
			show(sum, path)
		}
		return sum
	}
	for _, path := range rest {
		if n := walk(path); flags['s'] != "" {
			show(n, path)
		}
	}
	return nil
}

func dd(c *call) error {
	v := map[string]string{"bs": "512"}
	for _, a := range c.args {
		k, value, ok := strings.Cut(a, "=")
		if !ok || !strings.Contains(" if of bs count skip seek conv status ", " "+k+" ") {
			return fmt.Errorf("%s: want if= of= bs= count= skip= seek= conv=fsync,notrunc status=none", a)
		}
		v[k] = value
	}
	size, err := bytesOf(v["bs"])
	if err != nil {
		return err
	}
	in, out := c.in, c.out
	if v["if"] != "" {
		f, err := os.Open(v["if"])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	mode := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if strings.Contains(v["conv"], "notrunc") {
		mode &^= os.O_TRUNC
	}
	if v["of"] != "" {
		f, err := os.OpenFile(v["of"], mode, 0o666)
		if err != nil {
			return err
		}
		defer f.Close()
		if n, err := bytesOf(v["seek"]); err == nil && n > 0 {
			if _, err := f.Seek(n*size, io.SeekStart); err != nil {
				return err
			}
		}
		out = f
	}
	if n, err := bytesOf(v["skip"]); err == nil && n > 0 {
		io.CopyN(io.Discard, in, n*size)
	}
	limit := int64(-1)
	if v["count"] != "" {
		if limit, err = bytesOf(v["count"]); err != nil {
			return err
		}
	}
	start := time.Now()
	buf := make([]byte, size)
	var sum int64
	for ; limit != 0; limit-- {
		n, rerr := io.ReadFull(in, buf)
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		sum += int64(n)
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if f, ok := out.(*os.File); ok && strings.Contains(v["conv"], "fsync") {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if v["status"] != "none" {
		took := time.Since(start)
		fmt.Fprintf(c.err, "%d bytes (%s) copied, %.3f s, %s/s\n", sum, human(sum), took.Seconds(), human(int64(float64(sum)/took.Seconds())))
	}
	return nil
}

// bytesOf reads 4, 4k, 4M, 4G.
func bytesOf(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	factor := int64(1)
	for suffix, f := range map[string]int64{"k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "m": 1 << 20, "G": 1 << 30, "g": 1 << 30} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, factor = rest, f
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<40/factor {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return n * factor, nil
}

func readlink(c *call) error {
	flags, rest, err := c.options("fn", 0)
	if err != nil {
		return err
	}
	for _, name := range rest {
		var to string
		if flags['f'] != "" || c.name == "realpath" {
			if to, err = filepath.EvalSymlinks(name); err == nil {
				to, err = filepath.Abs(to)
			}
		} else {
			to, err = os.Readlink(name)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, to)
	}
	return nil
}

func basename(c *call) error {
	if len(c.args) == 0 {
		return errors.New("want a path")
	}
	name := filepath.Base(c.args[0])
	if len(c.args) > 1 && name != c.args[1] {
		name = strings.TrimSuffix(name, c.args[1])
	}
	_, err := fmt.Fprintln(c.out, name)
	return err
}

func dirname(c *call) error {
	for _, a := range c.args {
		fmt.Fprintln(c.out, filepath.Dir(a))
	}
	return nil
}

func mkfifo(c *call) error {
	for _, a := range c.args {
		if err := unix.Mkfifo(a, 0o666); err != nil {
			return &os.PathError{Op: "mkfifo", Path: a, Err: err}
		}
	}
	return nil
}

func rmdir(c *call) error {
	for _, a := range c.args {
		if err := unix.Rmdir(a); err != nil {
			return &os.PathError{Op: "rmdir", Path: a, Err: err}
		}
	}
	return nil
}

func pwd(c *call) error {
	dir, err := os.Getwd()
	if err == nil {
		fmt.Fprintln(c.out, dir)
	}
	return err
}

func syncDisks(*call) error {
	unix.Sync()
	return nil
}

func truncate(c *call) error {
	flags, rest, err := c.options("s:", 0)
	if err != nil {
		return err
	}
	size, err := bytesOf(flags['s'])
	if err != nil {
		return err
	}
	for _, name := range rest {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		err = f.Truncate(size)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func which(c *call) error {
	missing := false
	for _, name := range c.args {
		found := false
		for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
			path := filepath.Join(dir, name)
			if st, err := os.Stat(path); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
				fmt.Fprintln(c.out, path)
				found = true
				break
			}
		}
		missing = missing || !found
	}
	if missing {
		return status(1)
	}
	return nil
}

// mount lists, or mounts: mount [-t TYPE] [-o OPTIONS] SOURCE TARGET, where -o bind, rbind, ro and remount are known.
func mount(c *call) error {
	flags, rest, err := c.options("t:o:", 0)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		data, err := os.ReadFile("/proc/self/mounts")
		for l := range strings.Lines(string(data)) {
			if f := strings.Fields(l); len(f) > 3 {
				fmt.Fprintf(c.out, "%s on %s type %s (%s)\n", f[0], f[1], f[2], f[3])
			}
		}
		return err
	}
	if len(rest) != 2 {
		return errors.New("want SOURCE TARGET")
	}
	var bits uintptr
	var data []string
	for o := range strings.SplitSeq(flags['o'], ",") {
		switch o {
		case "":
		case "ro":
			bits |= unix.MS_RDONLY
		case "bind":
			bits |= unix.MS_BIND
		case "rbind":
			bits |= unix.MS_BIND | unix.MS_REC
		case "remount":
			bits |= unix.MS_REMOUNT
		case "noexec":
			bits |= unix.MS_NOEXEC
		case "nosuid":
			bits |= unix.MS_NOSUID
		case "nodev":
			bits |= unix.MS_NODEV
		default:
			data = append(data, o)
		}
	}
	if err := unix.Mount(rest[0], rest[1], flags['t'], bits, strings.Join(data, ",")); err != nil {
		return &os.PathError{Op: "mount", Path: rest[1], Err: err}
	}
	return nil
}

func umount(c *call) error {
	flags, rest, err := c.options("lf", 0)
	if err != nil {
		return err
	}
	how := 0
	if flags['l'] != "" {
		how = unix.MNT_DETACH
	}
	for _, name := range rest {
		if err := unix.Unmount(name, how); err != nil {
			return &os.PathError{Op: "umount", Path: name, Err: err}
		}
	}
	return nil
}

// test is the condition of scripts and health checks: -e -f -d -r -w -x -s -L -S -p -z -n, = != -eq -ne -lt -le -gt -ge, !.
func test(c *call) error {
	args := c.args
	if c.name == "[" {
		if len(args) == 0 || args[len(args)-1] != "]" {
			fmt.Fprintln(c.err, "[: missing ]")
			return status(2)
		}
		args = args[:len(args)-1]
	}
	ok, err := condition(args)
	if err != nil {
		fmt.Fprintln(c.err, "test:", err)
		return status(2)
	}
	if !ok {
		return status(1)
	}
	return nil
}

func condition(a []string) (bool, error) {
	switch {
	case len(a) == 0:
		return false, nil
	case a[0] == "!" && len(a) > 1:
		ok, err := condition(a[1:])
		return !ok, err
	case len(a) == 1:
		return a[0] != "", nil
	case len(a) == 2:
		return unary(a[0], a[1])
	case len(a) == 3:
		return compare(a[0], a[1], a[2])
	}
	return false, errors.New("too many arguments; use several tests with && and ||")
}

func unary(op, x string) (bool, error) {
	st, err := os.Stat(x)
	there := err == nil
	switch op {
	case "-e":
		return there, nil
	case "-f":
		return there && st.Mode().IsRegular(), nil
	case "-d":
		return there && st.IsDir(), nil
	case "-s":
		return there && st.Size() > 0, nil
	case "-p":
		return there && st.Mode()&fs.ModeNamedPipe != 0, nil
	case "-S":
		return there && st.Mode()&fs.ModeSocket != 0, nil
	case "-L", "-h":
		l, err := os.Lstat(x)
		return err == nil && l.Mode()&fs.ModeSymlink != 0, nil
	case "-r":
		return unix.Access(x, unix.R_OK) == nil, nil
	case "-w":
		return unix.Access(x, unix.W_OK) == nil, nil
	case "-x":
		return unix.Access(x, unix.X_OK) == nil, nil
	case "-z":
		return x == "", nil
	case "-n":
		return x != "", nil
	}
	return false, fmt.Errorf("unknown operator %s", op)
}

func compare(x, op, y string) (bool, error) {
	switch op {
	case "=", "==":
		return x == y, nil
	case "!=":
		return x != y, nil
	}
	a, err1 := strconv.ParseInt(x, 10, 64)
	b, err2 := strconv.ParseInt(y, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	switch op {
	case "-eq":
		return a == b, nil
	case "-ne":
		return a != b, nil
	case "-lt":
		return a < b, nil
	case "-le":
		return a <= b, nil
	case "-gt":
		return a > b, nil
	case "-ge":
		return a >= b, nil
	}
	return false, fmt.Errorf("unknown operator %s", op)
}
