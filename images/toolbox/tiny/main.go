// Command tiny holds the toolbox's smallest tools, which are started most often: true, false, echo, sleep, yes and pause.
// They are a program of their own because it starts in half a millisecond. It must import next to nothing.
package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	name := os.Args[0]
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			name = name[i+1:]
			break
		}
	}
	args := os.Args[1:]
	code, known := run(name, args)
	if !known && len(args) > 0 { // called by another name, with the tool as argument
		code, known = run(args[0], args[1:])
	}
	if !known {
		fail("want one of: true false echo sleep pause yes")
		code = 127
	}
	os.Exit(code)
}

func run(name string, args []string) (code int, known bool) {
	switch name {
	case "true":
		return 0, true
	case "false":
		return 1, true
	case "echo":
		return echo(args), true
	case "sleep":
		return sleep(args), true
	case "pause":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
		<-stop
		return 0, true
	case "yes":
		return yes(args), true
	case "--list":
		return out("true false echo sleep pause yes\n"), true
	}
	return 0, false
}

func out(s string) int {
	if _, err := os.Stdout.WriteString(s); err != nil {
		return 1
	}
	return 0
}

func fail(s string) { os.Stderr.WriteString("tiny: " + s + "\n") }

func join(args []string) string {
	s := ""
	for i, a := range args {
		if i > 0 {
			s += " "
		}
		s += a
	}
	return s
}

// echo knows -n, -e and -E.
func echo(args []string) int {
	newline, escapes := true, false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && onlyFlags(args[0][1:]) {
		for _, c := range args[0][1:] {
			newline = newline && c != 'n'
			if c != 'n' {
				escapes = c == 'e'
			}
		}
		args = args[1:]
	}
	s := join(args)
	if escapes {
		s = unescape(s)
	}
	if newline {
		s += "\n"
	}
	return out(s)
}

func onlyFlags(s string) bool {
	for _, c := range s {
		if c != 'n' && c != 'e' && c != 'E' {
			return false
		}
	}
	return true
}

func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b = append(b, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b = append(b, '\n')
		case 't':
			b = append(b, '\t')
		case 'r':
			b = append(b, '\r')
		case 'e':
			b = append(b, 27)
		case '\\':
			b = append(b, '\\')
		default:
			b = append(b, '\\', s[i])
		}
	}
	return string(b)
}

// sleep takes numbers with an optional unit s, m, h or d, adds them up, and "infinity".
func sleep(args []string) int {
	if len(args) == 0 {
		fail("sleep: how long? for example 1.5, 2m or infinity")
		return 1
	}
	var sum time.Duration
	for _, a := range args {
		if a == "infinity" || a == "inf" {
			time.Sleep(1<<63 - 1) // an empty select would be taken for a deadlock
		}
		unit := time.Second
		number := a
		if n := len(a); n > 0 {
			for suffix, u := range map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour} {
				if a[n-1] == suffix {
					unit, number = u, a[:n-1]
				}
			}
		}
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || f < 0 || f > 1e9 {
			fail("sleep: invalid time " + strconv.Quote(a))
			return 1
		}
		sum += time.Duration(f * float64(unit))
	}
	time.Sleep(sum)
	return 0
}

func yes(args []string) int {
	line := "y\n"
	if len(args) > 0 {
		line = join(args) + "\n"
	}
	block := make([]byte, 0, 1<<16)
	for len(block)+len(line) <= 1<<16 {
		block = append(block, line...)
	}
	if len(block) == 0 {
		block = []byte(line)
	}
	for {
		if _, err := os.Stdout.Write(block); err != nil {
			return 1
		}
	}
}
