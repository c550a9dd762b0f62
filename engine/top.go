package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// ticksPerSecond is the unit of times in /proc/PID/stat: USER_HZ, 100 on every architecture that Linux has now.
const ticksPerSecond = 100

var topTitles = []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}

// Top lists a container's processes. Without arguments it reads /proc itself and gives the columns of `ps -ef`; with
// arguments of the user's it runs the machine's ps, as Docker does.
func (e *Engine) Top(ctx context.Context, ref, psArgs string) (model.TopResult, error) {
	en, err := e.find(ref)
	if err != nil {
		return model.TopResult{}, err
	}
	t, err := en.mustRun()
	if err != nil {
		return model.TopResult{}, err
	}
	pids, err := t.Figures().Pids(ctx)
	if err != nil {
		return model.TopResult{}, errs.Wrap(err, "processes of container %s", en.get().Name)
	}
	slices.Sort(pids)
	e.publish(en.get(), "top", nil)
	if args := strings.Fields(psArgs); len(args) > 0 && psArgs != "-ef" {
		return runPs(ctx, args, pids)
	}
	out := model.TopResult{Titles: topTitles}
	boot := bootTime(e.now())
	for _, pid := range pids {
		if row, ok := procRow(pid, boot, e.now()); ok {
			out.Processes = append(out.Processes, row)
		}
	}
	return out, nil
}

// bootTime is when the machine started.
func bootTime(now time.Time) time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return now
	}
	return now.Add(-time.Duration(ts.Nano()))
}

// procRow is one line of ps -ef; no when the process is gone.
func procRow(pid int, boot, now time.Time) ([]string, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, false
	}
	// The name in parentheses may hold anything; what follows the last one is well-formed (proc_pid_stat(5)).
	end := bytes.LastIndexByte(stat, ')')
	begin := bytes.IndexByte(stat, '(')
	if end < 0 || begin < 0 {
		return nil, false
	}
	f := strings.Fields(string(stat[end+1:]))
	if len(f) < 20 {
		return nil, false
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(f[i], 10, 64); return n }
	cpu := (number(11) + number(12)) / ticksPerSecond
	started := boot.Add(time.Duration(number(19)) * time.Second / ticksPerSecond)
	cmdline, _ := os.ReadFile(dir + "/cmdline")
	cmd := strings.TrimSpace(strings.ReplaceAll(string(bytes.TrimRight(cmdline, "\x00")), "\x00", " "))
	if cmd == "" {
		cmd = "[" + string(stat[begin+1:end]) + "]"
	}
	share := int64(0)
	if lived := int64(now.Sub(started).Seconds()); lived > 0 {
		share = min(99, cpu*100/lived)
	}
	return []string{ownerOf(dir), strconv.Itoa(pid), f[1], strconv.FormatInt(share, 10), startText(started, now),
		ttyName(number(4)), fmt.Sprintf("%02d:%02d:%02d", cpu/3600, cpu/60%60, cpu%60), printable(cmd)}, true
}

// ownerOf names a process's user on this machine, or gives its number.
func ownerOf(dir string) string {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "?"
	}
	uid := strconv.FormatUint(uint64(st.Uid), 10)
	if st.Uid == 0 {
		return "root"
	}
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

func startText(started, now time.Time) string {
	started, now = started.Local(), now.Local()
	switch {
	case now.Sub(started) < 24*time.Hour:
		return started.Format("15:04")
	case started.Year() == now.Year():
		return started.Format("Jan02")
	}
	return started.Format("2006")
}

func ttyName(dev int64) string {
	major, minor := unix.Major(uint64(dev)), unix.Minor(uint64(dev))
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)*256+minor)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// printable keeps a hostile command line from writing to the reader's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// runPs runs the machine's ps and keeps the container's lines.
func runPs(ctx context.Context, args []string, pids []int) (model.TopResult, error) {
	out, err := exec.CommandContext(ctx, "ps", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return model.TopResult{}, invalid("ps %s: %s", strings.Join(args, " "), strings.TrimSpace(string(exit.Stderr)))
		}
		return model.TopResult{}, errs.As(errs.Unsupported, errs.Wrap(err, "ps arguments need the program ps on this machine; without them it is not needed"))
	}
	return parsePs(string(out), pids)
}

func parsePs(text string, pids []int) (model.TopResult, error) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	result := model.TopResult{Titles: strings.Fields(lines[0])}
	column := slices.Index(result.Titles, "PID")
	if column < 0 {
		return result, invalid("Couldn't find PID field in ps output: leave the PID column among the ones you choose")
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if last := len(result.Titles) - 1; len(fields) > last {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		result.Processes = append(result.Processes, fields)
	}
	return result, nil
}
