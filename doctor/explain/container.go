package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/audit"
)

func container(f Facts, c *Container) Report {
	v := &c.View
	r := Report{Kind: "container", Name: v.Name, ID: v.ID, State: stateOf(f.Now, v)}
	add := func(fs ...Finding) { r.Findings = append(r.Findings, fs...) }
	switch v.State.Status {
	case model.StatusCreated:
		add(created(c))
	case model.StatusRunning, model.StatusPaused:
		if v.State.Status == model.StatusPaused {
			add(find("container-paused", "all its processes are frozen: they answer nobody", "shoal unpause "+v.Name, calledBy(c, "pause")))
		}
		add(healthOf(c)...)
		add(reach(f, c)...)
	case model.StatusExited, model.StatusRestarting:
		add(ended(c))
		add(healthOf(c)...)
	case model.StatusDead:
		add(find("container-dead", "its removal failed half way: "+v.State.Error, "shoal rm -f "+v.Name+", and look at the daemon's log if it fails again"))
	}
	add(restarts(c)...)
	if len(c.Dependents) > 0 {
		add(find("container-in-use", "other containers share its namespaces and lose them when it goes: "+strings.Join(c.Dependents, ", "), "remove or recreate those first"))
	}
	return r
}

func stateOf(now time.Time, v *model.ContainerView) string {
	s := v.State
	ago := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() + " ago" }
	switch s.Status {
	case model.StatusCreated:
		return "created " + ago(v.Created) + ", not running"
	case model.StatusRunning:
		text := "running, started " + ago(s.StartedAt)
		if s.Health != nil {
			text += ", " + s.Health.Status
		}
		return text
	case model.StatusExited:
		return fmt.Sprintf("exited with code %d %s", s.ExitCode, ago(s.FinishedAt))
	case model.StatusRestarting:
		return fmt.Sprintf("waiting to be restarted; exited with code %d %s", s.ExitCode, ago(s.FinishedAt))
	}
	return string(s.Status)
}

func created(c *Container) Finding {
	if e := c.View.State.Error; e != "" {
		code := "start-failed"
		if n := c.View.State.ExitCode; n == 126 || n == 127 {
			code = "cannot-run"
		}
		return find(code, e, startFix(e, c))
	}
	return find("never-started", "nobody has started it yet", "shoal start "+c.View.Name)
}

func startFix(e string, c *Container) string {
	switch {
	case c.View.State.ExitCode == 127 || strings.Contains(e, "no such file"):
		return "see whether the image has the program, at this path and for this machine's architecture: shoal run --rm --entrypoint sh " + c.View.Image.Ref
	case c.View.State.ExitCode == 126 || strings.Contains(e, "permission denied"):
		return "the file is no program, or must not be executed: chmod +x in the image; a script needs a first line such as #!/bin/sh"
	case strings.Contains(e, "already in use") || strings.Contains(e, "port"):
		return "choose another port, or see who has it: shoal explain PORT"
	}
	return "mend what the message names, then: shoal start " + c.View.Name
}

// signals that end programs, by number.
var signals = map[int]string{1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL: the processor does not know an instruction", 6: "SIGABRT: the program gave up",
	7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV: the program used memory that is not its own", 13: "SIGPIPE", 15: "SIGTERM", 31: "SIGSYS: a system call was refused"}

// ended says why the last run ended.
func ended(c *Container) Finding {
	s, v := c.View.State, &c.View
	printed := ""
	if len(c.LogTail) > 0 {
		printed = "it last printed: " + strings.Join(slices.Compact(slices.Clone(c.LogTail)), " / ")
	}
	kills, stop := endings(c)
	number := s.ExitCode - 128
	switch {
	case s.OOMKilled:
		limit := "it has no memory limit of its own: the machine or a parent group ran out"
		fix := "give the machine more memory, or limit the others"
		if m := v.Spec.Resources.Memory.Limit; m > 0 {
			limit = fmt.Sprintf("its limit is %s", size(m))
			fix = fmt.Sprintf("raise the limit (shoal update --memory %s --memory-swap -1 %s), or make the program use less", size(2*m), v.Name)
		}
		return find("oom-killed", "the kernel killed a process of it because its memory was used up", fix, limit, printed)
	case s.Error != "" && s.ExitCode == 137 && strings.Contains(s.Error, "supervisor was killed"):
		return find("supervisor-killed", s.Error, "find out who kills it (dmesg, if it was the kernel for want of memory), then: shoal start "+v.Name)
	case s.Error != "":
		code := "start-failed"
		if s.ExitCode == 126 || s.ExitCode == 127 {
			code = "cannot-run"
		}
		return find(code, s.Error, startFix(s.Error, c))
	case stop:
		cause := "it was stopped over the API"
		if s.ExitCode == 137 && len(kills) > 1 {
			cause += "; it did not end on the first signal in time and was killed"
		}
		fix := "shoal start " + v.Name
		if s.ExitCode == 137 {
			fix += "; for a clean end let the program handle its stop signal, or give it longer (--stop-timeout)"
		}
		return find("stopped-by-request", cause, fix, calledBy(c, "stop", "restart", "kill"), sent(kills))
	case number > 0 && number < 65 && len(kills) > 0 && kills[len(kills)-1] == number:
		return find("stopped-by-request", "it was ended over the API by "+signalName(number), "shoal start "+v.Name, calledBy(c, "kill", "stop", "restart"))
	case s.ExitCode == 127:
		return find("cannot-run", "exit code 127: a shell did not find a command", "see which one in the log: shoal logs "+v.Name, printed)
	case s.ExitCode == 126:
		return find("cannot-run", "exit code 126: a shell found a command that it could not execute", "see which one in the log: shoal logs "+v.Name, printed)
	case number > 0 && signals[number] != "":
		fix := "look for a bug: shoal logs " + v.Name
		evidence := "nobody sent it over this API, as far as is remembered: it came from inside the container, from the kernel or from root of this machine"
		if number == 9 {
			fix = "see whether the kernel of this machine was out of memory (dmesg | grep -i oom), and who else sends signals"
		}
		return find("killed-by-signal", fmt.Sprintf("exit code %d: it ended by %s", s.ExitCode, signalName(number)), fix, evidence, printed)
	case s.ExitCode == 0:
		fix := "a container lives as long as its first program; run one that stays in the foreground"
		return find("exited-by-itself", "its program "+program(v)+" ended by itself and without error", fix, printed)
	}
	return find("exit-code", fmt.Sprintf("its program %s ended by itself with code %d; what that means is the program's own", program(v), s.ExitCode),
		"read what it said: shoal logs "+v.Name, printed)
}

func program(v *model.ContainerView) string {
	if v.Runtime.Path == "" {
		return ""
	}
	return strconv.Quote(v.Runtime.Path)
}

func signalName(n int) string {
	if s := signals[n]; s != "" {
		return s
	}
	return "signal " + strconv.Itoa(n)
}

// endings gives the signals that were sent in the last run, and whether it was stopped.
func endings(c *Container) (kills []int, stop bool) {
	for _, e := range c.Events {
		if e.Time.Before(c.View.State.StartedAt) {
			continue
		}
		switch e.Action {
		case "start":
			kills, stop = nil, false
		case "kill":
			n, _ := strconv.Atoi(e.Attrs["signal"])
			kills = append(kills, n)
		case "stop":
			stop = true
		}
	}
	return kills, stop || c.View.State.UserStopped && len(c.Events) == 0
}

func sent(kills []int) string {
	if len(kills) == 0 {
		return ""
	}
	names := make([]string, len(kills))
	for i, n := range kills {
		names[i], _, _ = strings.Cut(signalName(n), ":")
	}
	return "signals sent: " + strings.Join(names, ", ")
}

// calledBy names who made the last of the calls, from the audit log.
func calledBy(c *Container, verbs ...string) string {
	for i := len(c.Calls) - 1; i >= 0; i-- {
		r := &c.Calls[i]
		for _, v := range verbs {
			if strings.HasSuffix(r.Path, "/"+v) && r.Status < 400 {
				return fmt.Sprintf("%s %s at %s by %s", r.Method, r.Path, r.Time.Format(time.RFC3339), caller(r.Who))
			}
		}
	}
	return ""
}

func caller(w audit.Who) string {
	var parts []string
	if w.CN != "" {
		parts = append(parts, "certificate "+strconv.Quote(w.CN))
	}
	if w.UID != nil {
		parts = append(parts, fmt.Sprintf("uid %d, pid %d", *w.UID, w.PID))
	}
	if w.Address != "" {
		parts = append(parts, w.Address)
	}
	if w.Socket != "" {
		parts = append(parts, "socket "+w.Socket)
	}
	return strings.Join(parts, ", ")
}

func restarts(c *Container) []Finding {
	s, p := c.View.State, c.View.Spec.Restart
	switch {
	case s.Status == model.StatusRestarting && s.RestartCount > 0 || s.RestartCount > 2 && s.Status == model.StatusRunning:
		return []Finding{find("restarts-in-a-loop", fmt.Sprintf("its restart policy %q has started it %d times again", p.Name, s.RestartCount),
			"mend what makes it end; meanwhile: shoal update --restart no "+c.View.Name, fmt.Sprintf("last exit code %d", s.ExitCode))}
	case s.Status == model.StatusExited && p.Name == "on-failure" && p.MaxRetries > 0 && s.RestartCount >= p.MaxRetries && s.ExitCode != 0:
		return []Finding{find("restarts-given-up", fmt.Sprintf("its restart policy on-failure:%d is used up", p.MaxRetries), "mend what makes it end, then: shoal start "+c.View.Name)}
	}
	return nil
}

func healthOf(c *Container) []Finding {
	h := c.View.State.Health
	if h == nil || h.Status != "unhealthy" || !c.View.State.Alive() {
		return nil
	}
	last := ""
	if n := len(h.Log); n > 0 {
		said := strings.TrimSpace(h.Log[n-1].Output)
		if said == "" {
			said = "it printed nothing"
		}
		last = fmt.Sprintf("the last probe ended with %d: %s", h.Log[n-1].ExitCode, said)
	}
	test := ""
	if spec := c.View.Spec.Health; spec != nil {
		test = "the probe is: " + strings.Join(spec.Test, " ")
	}
	return []Finding{find("unhealthy", fmt.Sprintf("its health check has failed %d times in a row", h.FailingStreak), "run the probe by hand: shoal exec "+c.View.Name+" ...", last, test)}
}

func size(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%dg", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%dm", n>>20)
	}
	return fmt.Sprintf("%dk", n>>10)
}
