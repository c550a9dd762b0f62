// Package failpoint lets a test stop, delay, fail or kill a process at a named point in a multi-step operation.
// Points cost one atomic load when none is armed. They are armed by the environment variable SHOAL_FAILPOINTS,
// for example "engine/create/record=kill;image/commit/sync=error(no space)", read once by Arm, which mains call.
package failpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// EnvName is the variable that Arm reads.
const EnvName = "SHOAL_FAILPOINTS"

type action struct {
	count int // how many hits pass before it acts
	verb  string
	arg   string
}

var (
	armed atomic.Bool
	mu    sync.Mutex
	table map[string]*action
	tell  string // file that gets a line for each point that acts
)

// Arm takes the points from text: "name=[skip*]verb[(arg)]", joined by ';'. Verbs: error(message), enospc, kill,
// delay(duration), off. An empty text disarms all. The item "tell=FILE" makes every point that acts add a line with its
// name and the process's ID to the file, so that a test knows which points were reached, and by whom.
func Arm(text string) error {
	next, file := map[string]*action{}, ""
	for item := range strings.SplitSeq(text, ";") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, what, ok := strings.Cut(item, "=")
		if !ok {
			return fmt.Errorf("fail point %q: want name=verb", item)
		}
		if name == "tell" {
			file = what
			continue
		}
		a := &action{verb: what}
		if skip, rest, ok := strings.Cut(what, "*"); ok {
			n, err := strconv.Atoi(skip)
			if err != nil {
				return fmt.Errorf("fail point %q: %w", item, err)
			}
			a.count, a.verb = n, rest
		}
		if verb, arg, ok := strings.Cut(a.verb, "("); ok {
			a.verb, a.arg = verb, strings.TrimSuffix(arg, ")")
		}
		switch a.verb {
		case "error", "enospc", "kill", "delay", "off":
		default:
			return fmt.Errorf("fail point %q: unknown verb %q", item, a.verb)
		}
		next[name] = a
	}
	mu.Lock()
	defer mu.Unlock()
	table, tell = next, file
	armed.Store(len(next) > 0)
	return nil
}

// Hit is the point itself: nil, or the error that a test asked for; it may delay or kill the process.
func Hit(name string) error {
	if !armed.Load() {
		return nil
	}
	mu.Lock()
	a := table[name]
	if a == nil {
		mu.Unlock()
		return nil
	}
	if a.count > 0 {
		a.count--
		mu.Unlock()
		return nil
	}
	verb, arg, file := a.verb, a.arg, tell
	mu.Unlock()
	if file != "" {
		note(file, name)
	}
	switch verb {
	case "error":
		return errors.New("fail point " + name + ": " + arg)
	case "enospc":
		return fmt.Errorf("fail point %s: %w", name, syscall.ENOSPC)
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "delay":
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
	}
	return nil
}

// note adds a line to a file in one write, so that lines of several processes do not mix.
func note(file, name string) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %d\n", name, os.Getpid())
}
