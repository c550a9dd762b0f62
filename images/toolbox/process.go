package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func processTools() map[string]tool {
	return map[string]tool{"ps": ps, "top": top, "kill": kill, "pidof": pidof, "env": env, "printenv": printenv, "id": id, "whoami": whoami,
		"hostname": hostname, "uname": uname, "date": date, "uptime": uptime, "free": free, "nproc": nproc, "timeout": timeout, "caps": caps, "stty": stty,
		"nohup": nohup, "usleep": usleep}
}

// process is what /proc tells of one.
type process struct {
	pid, ppid int
	user      string
	state     string
	rss       int64 // kB
	ticks     int64 // 1/100 s
	command   string
}

func processes() ([]process, error) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []process
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		text := string(stat)
		open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		f := strings.Fields(text[end+1:])
		if open < 0 || end < open || len(f) < 22 {
			continue
		}
		p := process{pid: pid, state: f[0], command: "[" + text[open+1:end] + "]"}
		p.ppid, _ = strconv.Atoi(f[1])
		utime, _ := strconv.ParseInt(f[11], 10, 64)
		stime, _ := strconv.ParseInt(f[12], 10, 64)
		rss, _ := strconv.ParseInt(f[21], 10, 64)
		p.ticks, p.rss = utime+stime, rss*int64(os.Getpagesize())/1024
		if line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline"); len(line) > 0 {
			p.command = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		}
		if st, err := os.Stat("/proc/" + e.Name()); err == nil {
			p.user = userName(int(st.Sys().(*syscall.Stat_t).Uid))
		}
		out = append(out, p)
	}
	return out, nil
}

func (p process) line() string {
	return fmt.Sprintf("%7d %7d %-8s %s %8d %4d:%02d.%02d %s", p.pid, p.ppid, p.user, p.state, p.rss, p.ticks/6000, p.ticks/100%60, p.ticks%100, p.command)
}

const psHeader = "    PID    PPID USER     S   RSS kB       TIME COMMAND"

func ps(c *call) error {
	list, err := processes()
	fmt.Fprintln(c.out, psHeader)
	for _, p := range list {
		fmt.Fprintln(c.out, p.line())
	}
	return err
}

// top shows the processes by use of the processor, every two seconds; -n COUNT ends it.
func top(c *call) error {
	flags, _, err := c.options("bn:d:", 0)
	if err != nil {
		return err
	}
	n, err := count(flags, 'n', -1)
	if err != nil {
		return err
	}
	last := map[int]int64{}
	for {
		list, err := processes()
		if err != nil {
			return err
		}
		used := map[int]int64{}
		for _, p := range list {
			used[p.pid] = p.ticks - last[p.pid]
			last[p.pid] = p.ticks
		}
		slices.SortStableFunc(list, func(a, b process) int { return int(used[b.pid] - used[a.pid]) })
		if isTerminal(os.Stdout) && flags['b'] == "" {
			fmt.Fprint(c.out, "\x1b[H\x1b[2J")
		}
		load, _ := os.ReadFile("/proc/loadavg")
		fmt.Fprintf(c.out, "%s  load %s\n%s\n", time.Now().Format("15:04:05"), strings.TrimSpace(string(load)), psHeader)
		for i, p := range list {
			if i == 20 {
				break
			}
			fmt.Fprintln(c.out, p.line())
		}
		if n--; n == 0 {
			return nil
		}
		time.Sleep(2 * time.Second)
	}
}

func signalOf(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if s == 0 {
		return 0, fmt.Errorf("unknown signal %q", name)
	}
	return s, nil
}

func kill(c *call) error {
	args, sig := c.args, syscall.SIGTERM
	if len(args) > 0 && args[0] == "-l" {
		for i := 1; i < 32; i++ {
			fmt.Fprintf(c.out, "%d %s\n", i, unix.SignalName(syscall.Signal(i)))
		}
		return nil
	}
	if len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "--" {
		name := args[0][1:]
		args = args[1:]
		if name == "s" && len(args) > 0 {
			name, args = args[0], args[1:]
		}
		var err error
		if sig, err = signalOf(name); err != nil {
			return err
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("want [-SIGNAL] PID...")
	}
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return nil
}

func pidof(c *call) error {
	list, err := processes()
	if err != nil {
		return err
	}
	found := false
	for _, p := range list {
		name := strings.Fields(p.command + " ")[0]
		name = name[strings.LastIndexByte(name, '/')+1:]
		if slices.Contains(c.args, name) {
			fmt.Fprintln(c.out, p.pid)
			found = true
		}
	}
	if !found {
		return status(1)
	}
	return nil
}

func env(c *call) error {
	args := c.args
	list := os.Environ()
	for len(args) > 0 {
		switch {
		case args[0] == "-i" || args[0] == "-":
			list = nil
		case args[0] == "-u" && len(args) > 1:
			list = slices.DeleteFunc(list, func(e string) bool { return strings.HasPrefix(e, args[1]+"=") })
			args = args[1:]
		case strings.Contains(args[0], "="):
			name, _, _ := strings.Cut(args[0], "=")
			list = slices.DeleteFunc(list, func(e string) bool { return strings.HasPrefix(e, name+"=") })
			list = append(list, args[0])
		default:
			return become1(args, list)
		}
		args = args[1:]
	}
	for _, e := range list {
		fmt.Fprintln(c.out, e)
	}
	return nil
}

// become1 replaces this process.
func become1(args, environ []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return status(127)
	}
	err = syscall.Exec(path, args, environ)
	fmt.Fprintln(os.Stderr, &os.PathError{Op: "exec", Path: path, Err: err})
	return status(126)
}

func printenv(c *call) error {
	if len(c.args) == 0 {
		return env(c)
	}
	v, ok := os.LookupEnv(c.args[0])
	if !ok {
		return status(1)
	}
	_, err := fmt.Fprintln(c.out, v)
	return err
}

func id(c *call) error {
	flags, _, err := c.options("ugGn", 0)
	if err != nil {
		return err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	name := flags['n'] != ""
	switch {
	case flags['u'] != "" && name:
		fmt.Fprintln(c.out, userName(uid))
	case flags['u'] != "":
		fmt.Fprintln(c.out, uid)
	case flags['g'] != "" && name:
		fmt.Fprintln(c.out, groupName(gid))
	case flags['g'] != "":
		fmt.Fprintln(c.out, gid)
	default:
		list := []string{fmt.Sprintf("%d(%s)", gid, groupName(gid))}
		for _, g := range groups {
			if g != gid {
				list = append(list, fmt.Sprintf("%d(%s)", g, groupName(g)))
			}
		}
		if flags['G'] != "" {
			fmt.Fprintln(c.out, strings.Join(list, " "))
			return nil
		}
		fmt.Fprintf(c.out, "uid=%d(%s) gid=%d(%s) groups=%s\n", uid, userName(uid), gid, groupName(gid), strings.Join(list, ","))
	}
	return nil
}

func whoami(c *call) error {
	_, err := fmt.Fprintln(c.out, userName(os.Geteuid()))
	return err
}

func hostname(c *call) error {
	if len(c.args) > 0 && !strings.HasPrefix(c.args[0], "-") {
		return os.NewSyscallError("sethostname", unix.Sethostname([]byte(c.args[0])))
	}
	name, err := os.Hostname()
	if len(c.args) > 0 && c.args[0] == "-i" {
		for _, a := range localAddresses() {
			fmt.Fprintln(c.out, a)
		}
		return nil
	}
	fmt.Fprintln(c.out, name)
	return err
}

func uname(c *call) error {
	flags, _, err := c.options("asnrvmo", 0)
	if err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	if len(flags) == 0 {
		flags['s'] = "true"
	}
	var out []string
	for f, v := range map[byte][]byte{'s': u.Sysname[:], 'n': u.Nodename[:], 'r': u.Release[:], 'v': u.Version[:], 'm': u.Machine[:]} {
		if flags['a'] != "" || flags[f] != "" {
			out = append(out, strconv.Itoa(strings.IndexByte("snrvm", f))+unix.ByteSliceToString(v))
		}
	}
	slices.Sort(out)
	for i := range out {
		out[i] = out[i][1:]
	}
	_, err = fmt.Fprintln(c.out, strings.Join(out, " "))
	return err
}

// date knows + and the usual letters of strftime.
func date(c *call) error {
	now := time.Now()
	args := c.args
	if len(args) > 0 && args[0] == "-u" {
		now, args = now.UTC(), args[1:]
	}
	if len(args) == 0 {
		_, err := fmt.Fprintln(c.out, now.Format("Mon Jan _2 15:04:05 MST 2006"))
		return err
	}
	if !strings.HasPrefix(args[0], "+") {
		return errors.New("want +FORMAT, for example +%F")
	}
	layouts := map[byte]string{'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'F': "2006-01-02", 'T': "15:04:05", 'Z': "MST", 'z': "-0700",
		'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'y': "06", 'N': "000000000", 'R': "15:04", 'e': "_2", 'I': "03", 'p': "PM", 'c': "Mon Jan _2 15:04:05 2006"}
	var out strings.Builder
	for i, format := 0, args[0][1:]; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			out.WriteByte(format[i])
			continue
		}
		i++
		switch l, known := layouts[format[i]]; {
		case format[i] == 's':
			out.WriteString(strconv.FormatInt(now.Unix(), 10))
		case format[i] == 'N':
			fmt.Fprintf(&out, "%09d", now.Nanosecond())
		case known:
			out.WriteString(now.Format(l))
		default:
			out.WriteString(format[i : i+1])
		}
	}
	_, err := fmt.Fprintln(c.out, out.String())
	return err
}

func uptime(c *call) error {
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return err
	}
	seconds, _ := strconv.ParseFloat(strings.Fields(string(data))[0], 64)
	load, _ := os.ReadFile("/proc/loadavg")
	_, err = fmt.Fprintf(c.out, "%s up %s, load %s", time.Now().Format("15:04:05"), time.Duration(seconds)*time.Second, load)
	return err
}

func free(c *call) error {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	v := map[string]int64{}
	for l := range strings.Lines(string(data)) {
		if f := strings.Fields(l); len(f) > 1 {
			v[strings.TrimSuffix(f[0], ":")], _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	show := func(kb int64) string { return strconv.FormatInt(kb, 10) }
	if len(c.args) > 0 {
		switch c.args[0] {
		case "-m":
			show = func(kb int64) string { return strconv.FormatInt(kb/1024, 10) }
		case "-h":
			show = func(kb int64) string { return human(kb * 1024) }
		}
	}
	fmt.Fprintf(c.out, "%-8s %12s %12s %12s %12s\n", "", "total", "used", "free", "available")
	fmt.Fprintf(c.out, "%-8s %12s %12s %12s %12s\n", "Mem:", show(v["MemTotal"]), show(v["MemTotal"]-v["MemAvailable"]), show(v["MemFree"]), show(v["MemAvailable"]))
	_, err = fmt.Fprintf(c.out, "%-8s %12s %12s %12s\n", "Swap:", show(v["SwapTotal"]), show(v["SwapTotal"]-v["SwapFree"]), show(v["SwapFree"]))
	return err
}

func nproc(c *call) error {
	_, err := fmt.Fprintln(c.out, runtime.NumCPU())
	return err
}

func timeout(c *call) error {
	args, sig := c.args, syscall.SIGTERM
	if len(args) > 1 && args[0] == "-s" {
		s, err := signalOf(args[1])
		if err != nil {
			return err
		}
		sig, args = s, args[2:]
	}
	if len(args) < 2 {
		return errors.New("want [-s SIGNAL] DURATION COMMAND...")
	}
	text := args[0]
	if strings.Trim(text, "0123456789.") == "" {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(c.err, "timeout:", err)
		return status(127)
	}
	relay := make(chan os.Signal, 1)
	signal.Notify(relay, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	late := time.After(d)
	expired := false
	for {
		select {
		case s := <-relay:
			cmd.Process.Signal(s)
		case <-late:
			expired = true
			cmd.Process.Signal(sig)
		case <-done:
			if expired {
				return status(124)
			}
			if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				return status(128 + int(ws.Signal()))
			}
			if code := cmd.ProcessState.ExitCode(); code != 0 {
				return status(code)
			}
			return nil
		}
	}
}

// caps shows what this process may do: capabilities, seccomp, no_new_privs.
func caps(c *call) error {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	names := strings.Fields("chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service net_broadcast " +
		"net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time " +
		"sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore")
	for l := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(l), ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(key, "Cap"):
			bits, _ := strconv.ParseUint(value, 16, 64)
			var have []string
			for i, n := range names {
				if bits&(1<<i) != 0 {
					have = append(have, n)
				}
			}
			fmt.Fprintf(c.out, "%-12s %s %s\n", key, value, strings.Join(have, " "))
		case key == "Seccomp" || key == "NoNewPrivs" || key == "Seccomp_filters":
			fmt.Fprintf(c.out, "%-12s %s\n", key, value)
		}
	}
	return nil
}

func stty(c *call) error {
	if len(c.args) != 1 || c.args[0] != "size" {
		return errors.New("knows only: size")
	}
	w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, w.Row, w.Col)
	return err
}

func nohup(c *call) error {
	if len(c.args) == 0 {
		return errors.New("want a command")
	}
	signal.Ignore(syscall.SIGHUP)
	return become1(c.args, os.Environ())
}

func usleep(c *call) error {
	if len(c.args) != 1 {
		return errors.New("want microseconds")
	}
	n, err := strconv.ParseInt(c.args[0], 10, 64)
	time.Sleep(time.Duration(n) * time.Microsecond)
	return err
}
