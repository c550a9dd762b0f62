package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

func shellTools() map[string]tool {
	return map[string]tool{"sh": shell, "bash": shell, "ash": shell}
}

// become is the name by which a command that is the last thing to do takes the shell's place.
const become = "\x00become"

// shell runs a script, a command or an interactive session.
func shell(c *call) error {
	args := c.args
	var options []string
	command, hasCommand, interactive := "", false, false
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') && !hasCommand {
		flag := args[0]
		args = args[1:]
		if flag == "--" {
			break
		}
		if flag == "--login" {
			continue
		}
		var set string
		for _, f := range flag[1:] {
			switch f {
			case 'c':
				hasCommand = true
			case 'i':
				interactive = true
			case 's', 'l':
			default:
				set += string(f)
			}
		}
		if set != "" {
			options = append(options, flag[:1]+set)
		}
	}
	if hasCommand {
		if len(args) == 0 {
			return errors.New("-c needs a command")
		}
		command, args = args[0], args[1:]
	}
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	r, err := interp.New(interp.StdIO(c.in, c.out, c.err), interp.Params(append(append(options, "--"), args...)...),
		interp.Env(expand.ListEnviron(environment()...)), interp.ExecHandlers(replace), interp.CallHandler(asProgram), interp.Interactive(interactive))
	if err != nil {
		return err
	}
	switch {
	case hasCommand:
		return result(runText(r, strings.NewReader(command), name, true))
	case name != "":
		f, err := os.Open(name)
		if err != nil {
			fmt.Fprintln(c.err, "sh:", err)
			return status(127)
		}
		defer f.Close()
		return result(runText(r, f, name, false))
	case interactive || isTerminal(c.in):
		return session(c, r)
	}
	return result(runText(r, c.in, "sh", false))
}

// environment adds what a shell is expected to set.
func environment() []string {
	env := os.Environ()
	for name, value := range map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "SHELL": "/bin/sh"} {
		if _, ok := os.LookupEnv(name); !ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func result(err error) error {
	var code interp.ExitStatus
	if errors.As(err, &code) {
		return status(code)
	}
	return err
}

func runText(r *interp.Runner, text io.Reader, name string, last bool) error {
	prog, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(text, name)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sh:", err)
		return status(2)
	}
	markLast(prog, last)
	return r.Run(context.Background(), prog)
}

// markLast lets `exec command` at the top of a script, and with last its last simple command, take the shell's place: it
// then gets the signals, and is process 1 when the shell was.
func markLast(prog *syntax.File, last bool) {
	for i, s := range prog.Stmts {
		call, ok := s.Cmd.(*syntax.CallExpr)
		if !ok || s.Background || s.Coprocess || s.Negated || len(s.Redirs) > 0 || len(call.Args) == 0 {
			continue
		}
		word := call.Args[0].Lit()
		switch {
		case word == "exec" && len(call.Args) > 1 && !strings.HasPrefix(call.Args[1].Lit(), "-"):
			call.Args[0] = literal(become)
		case last && i == len(prog.Stmts)-1 && word != "" && !interp.IsBuiltin(word) && !defines(prog, word) && !traps(prog):
			call.Args = append([]*syntax.Word{literal(become)}, call.Args...)
		}
	}
}

func literal(s string) *syntax.Word {
	return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: s}}}
}

// defines says whether the program has a function of that name; an alias or a sourced file counts as maybe.
func defines(prog *syntax.File, name string) bool {
	found := false
	syntax.Walk(prog, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.FuncDecl:
			found = found || n.Name != nil && n.Name.Value == name
		case *syntax.CallExpr:
			if len(n.Args) > 0 {
				word := n.Args[0].Lit()
				found = found || word == "." || word == "source" || word == "alias" || word == "eval"
			}
		}
		return true
	})
	return found
}

// traps says whether something is to be done at the end.
func traps(prog *syntax.File) bool {
	found := false
	syntax.Walk(prog, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok && len(call.Args) > 0 && call.Args[0].Lit() == "trap" {
			found = true
		}
		if s, ok := n.(*syntax.Stmt); ok && s.Background {
			found = true
		}
		return true
	})
	return found
}

// asProgram sends the built-ins that the interpreter knows by name only to the programs of that name.
func asProgram(ctx context.Context, args []string) ([]string, error) {
	if args[0] != "kill" {
		return args, nil
	}
	h := interp.HandlerCtx(ctx)
	if path, err := interp.LookPathDir(h.Dir, h.Env, args[0]); err == nil {
		args = append([]string{path}, args[1:]...)
	}
	return args, nil
}

// replace handles become by execve, and leaves everything else to the interpreter.
func replace(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		if args[0] != become {
			return next(ctx, args)
		}
		args = args[1:]
		h := interp.HandlerCtx(ctx)
		path, err := interp.LookPathDir(h.Dir, h.Env, args[0])
		if err != nil {
			return next(ctx, args) // which says what is wrong
		}
		var env []string
		h.Env.Each(func(name string, v expand.Variable) bool {
			if v.Exported && v.Kind == expand.String {
				env = append(env, name+"="+v.String())
			}
			return true
		})
		if err := os.Chdir(h.Dir); err != nil {
			return next(ctx, args)
		}
		if err := syscall.Exec(path, args, env); err != nil {
			return next(ctx, args) // a script without "#!", for example
		}
		return nil
	}
}

// terminal is an interactive session. The terminal edits the line; Ctrl-C gives up the line or ends the command, Ctrl-D on
// an empty line ends the session.
type terminal struct {
	c  *call
	r  *interp.Runner
	in *bufio.Reader

	mu      sync.Mutex
	stop    context.CancelFunc // of the running command; nil at the prompt
	partial bool               // the prompt asks for more of an unfinished command
	giveUp  bool               // Ctrl-C came in the middle of an unfinished command
}

// errGivenUp ends the parsing of an unfinished command.
var errGivenUp = errors.New("given up")

func session(c *call, r *interp.Runner) error {
	t := &terminal{c: c, r: r, in: bufio.NewReader(c.in)}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGTTOU)
	go func() {
		for s := range signals {
			if s == syscall.SIGINT {
				t.interrupt()
			}
		}
	}()
	last := error(nil)
	fmt.Fprint(c.out, prompt(r))
	for {
		parser := syntax.NewParser(syntax.Variant(syntax.LangBash))
		for stmts, err := range parser.InteractiveSeq(t) {
			if errors.Is(err, errGivenUp) {
				break // the prompt was shown already
			}
			if err != nil { // the parser is used up; the next one goes on with the next line
				fmt.Fprintf(c.err, "sh: %v\n%s", err, prompt(r))
				last = status(2)
				break
			}
			t.mu.Lock()
			t.partial = parser.Incomplete()
			t.mu.Unlock()
			if parser.Incomplete() {
				fmt.Fprint(c.out, "> ")
				continue
			}
			var exit bool
			if last, exit = t.run(stmts); exit {
				return last
			}
			fmt.Fprint(c.out, prompt(r))
		}
		if _, err := t.in.Peek(1); err != nil {
			fmt.Fprintln(c.out)
			return last
		}
	}
}

func (t *terminal) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop != nil {
		t.stop()
		return
	}
	t.giveUp, t.partial = t.partial, false
	fmt.Fprint(t.c.out, "\n"+prompt(t.r))
}

// run runs what one line asked for; exit says that the session is to end.
func (t *terminal) run(stmts []*syntax.Stmt) (last error, exit bool) {
	for _, stmt := range stmts {
		ctx, cancel := context.WithCancel(context.Background())
		t.mu.Lock()
		t.stop = cancel
		t.mu.Unlock()
		err := t.r.Run(ctx, stmt)
		t.mu.Lock()
		t.stop = nil
		t.mu.Unlock()
		interrupted := ctx.Err() != nil
		cancel()
		if interrupted {
			fmt.Fprintln(t.c.out)
			return status(128 + int(syscall.SIGINT)), false // though the interpreter thinks that it was to end
		}
		last = result(err)
		var code status
		if err != nil && !errors.As(last, &code) {
			fmt.Fprintln(t.c.err, "sh:", err)
		}
		if t.r.Exited() {
			return last, true
		}
	}
	return last, false
}

// Read gives the parser one line at a time, so that what follows a bad line is not lost with it.
func (t *terminal) Read(p []byte) (int, error) {
	for n := range p {
		b, err := t.in.ReadByte()
		if err != nil {
			return n, err
		}
		t.mu.Lock()
		giveUp := t.giveUp
		t.giveUp = false
		t.mu.Unlock()
		if giveUp {
			t.in.UnreadByte()
			return n, errGivenUp
		}
		p[n] = b
		if b == '\n' {
			return n + 1, nil
		}
	}
	return len(p), nil
}

func prompt(r *interp.Runner) string {
	mark := "$ "
	if os.Geteuid() == 0 {
		mark = "# "
	}
	return r.Dir + " " + mark
}
