package cli

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// completable is an engine with some things that have names.
func completable(w http.ResponseWriter, _ *http.Request, path string) bool {
	body, ok := map[string]string{
		"/containers/json": `[{"Id":"1","Names":["/web"],"State":"running"},{"Id":"2","Names":["/worker"],"State":"exited"},{"Id":"3","Names":["/ice"],"State":"paused"}]`,
		"/images/json":     `[{"Id":"sha256:1","RepoTags":["whoami:latest","registry.test:5000/app:1"]}]`,
		"/networks":        `[{"Name":"bridge"},{"Name":"inner"}]`,
		"/volumes":         `{"Volumes":[{"Name":"data"}]}`,
		"/info":            `{"Runtimes":{"shoal":{},"crun":{}}}`,
		"/shoal/sockets":   `[{"Name":"dashboard"}]`,
	}[path]
	if ok {
		fmt.Fprint(w, body)
	}
	return ok
}

// completionWorld has an engine, contexts and a plug-in, and gives the environment by which programs find them.
func completionWorld(t *testing.T) (env []string, host string) {
	t.Helper()
	r := newRecorder(t, completable)
	dir := t.TempDir()
	plugin := "#!/bin/sh\ncase $1 in __complete*) printf 'up\\ndown\\n:4\\n' ;; esac\n"
	if err := os.MkdirAll(filepath.Join(dir, "cli-plugins"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cli-plugins", "docker-compose"), []byte(plugin), 0o700); err != nil {
		t.Fatal(err)
	}
	env = slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "DOCKER_") || strings.HasPrefix(e, "SHOAL_")
	})
	env = append(env, "DOCKER_CONFIG="+dir, "HOME="+dir, "TERM=dumb", "XDG_CONFIG_HOME="+dir+"/xdg", "XDG_DATA_HOME="+dir+"/data", "XDG_CACHE_HOME="+dir+"/cache")
	make := exec.Command("shoal", "context", "create", "far", "--docker", "host="+r.host)
	make.Env = env
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return append(env, "SHOAL_HOST="+r.host), r.host
}

func TestCompletions(t *testing.T) {
	env, host := completionWorld(t)
	for _, tt := range []struct{ line, want string }{
		{"stop ", "web"},
		{"stop web ", ""},
		{"start ", "worker"},
		{"unpause ", "ice"},
		{"rm ", "web worker ice"},
		{"rm web ", "worker ice"},
		{"exec ", "web"},
		{"exec -it ", "web"},
		{"container logs ", "web worker ice"},
		{"logs web ", ""},
		{"run ", "whoami:latest registry.test:5000/app:1"},
		{"run -d --network ", "bridge inner"},
		{"run --net=i", "bridge inner"}, // the shell chooses
		{"run --volumes-from ", "web worker ice"},
		{"run --runtime ", "crun shoal"},
		{"run --restart on", "on-failure"},
		{"run --cap-add net_b", "NET_BIND_SERVICE NET_BROADCAST"},
		{"network connect ", "bridge inner"},
		{"network connect inner ", "web worker ice"},
		{"network rm bridge ", "inner"},
		{"volume rm ", "data"},
		{"volume create ", ""},
		{"socket rm ", "dashboard"},
		{"inspect ", "web worker ice whoami:latest registry.test:5000/app:1 bridge inner data"},
		{"cp ", "web: worker: ice:"},
		{"cp web:/etc/hosts ", ""},
		{"cp file ", "web: worker: ice:"},
		{"ps --filter anc", "ancestor="},
		{"context use ", "default far"},
		{"--context ", "default far"},
		{"-c far stop ", "web"},
		{"--context=far stop ", "web"},
		{"-H " + host + " stop ", "web"},
		{"-H unix:///nobody/there stop ", ""},
		{"-c unknown stop ", ""},
		{"compose ", "up down"},
		{"-c far compose ", "up down"},
		{"completion z", "zsh"},
	} {
		args := append([]string{"__completeNoDesc"}, strings.Split(tt.line, " ")...)
		cmd := exec.Command("shoal", args...)
		cmd.Env = env
		if strings.Contains(tt.line, "-c ") || strings.Contains(tt.line, "--context=") {
			cmd.Env = append(cmd.Env, "SHOAL_HOST=")
		}
		out, err := cmd.Output()
		got := strings.Fields(string(out))
		if err != nil || len(got) == 0 || !strings.HasPrefix(got[len(got)-1], ":") {
			t.Errorf("%q: %v, %q", tt.line, err, out)
			continue
		}
		if s := strings.Join(got[:len(got)-1], " "); s != tt.want {
			t.Errorf("%q: %q, want %q", tt.line, s, tt.want)
		}
	}
}

// TestCompletionInShells lets real shells complete lines with the scripts that are given to them.
func TestCompletionInShells(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three shells")
	}
	env, _ := completionWorld(t)
	lines := map[string]string{
		"shoal stop w":                   "web",
		"shoal -c far stop w":            "web",
		"shoal run --network=in":         "inner",
		"shoal run registry.test:5000/a": "app:1",
		"shoal contai":                   "container",
		"shoal compose d":                "down",
		"shoal kill nob":                 "",
	}
	shell := func(t *testing.T, program string, args ...string) *exec.Cmd {
		t.Helper()
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here; Debian's package %s has it", program, program)
		}
		cmd := exec.Command(program, args...)
		cmd.Env = env
		return cmd
	}
	// In bash the function that the script registers is called as bash calls it; with the package bash-completion and without.
	for name, library := range map[string]string{"bash alone": "/dev/null", "bash": "/usr/share/bash-completion/bash_completion"} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(library); err != nil {
				t.Skip("no bash-completion here; Debian's package bash-completion has it")
			}
			for line, want := range lines {
				words := strings.NewReplacer("=", " = ", ":", " : ").Replace(line)
				script := fmt.Sprintf(`. %s; . <(shoal completion bash); COMP_LINE=%q; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMP_KEY=9
					COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); compopt() { :; }; __start_shoal; echo "${COMPREPLY[@]}"`, library, line, words)
				out, err := shell(t, "bash", "--norc", "-c", script).CombinedOutput()
				if got := strings.TrimSpace(string(out)); err != nil || !same(got, want) {
					t.Errorf("%q: %q (%v), want %q", line, got, err, want)
				}
			}
		})
	}
	t.Run("fish", func(t *testing.T) {
		script := "shoal completion fish | source"
		var order []string
		for line := range lines {
			order = append(order, line)
			script += fmt.Sprintf("; echo '>>'(complete -C '%s')", line)
		}
		out, err := shell(t, "fish", "--no-config", "-c", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := strings.Split(string(out), "\n")
		for i, line := range order {
			if word, _, _ := strings.Cut(strings.TrimPrefix(got[i], ">>"), "\t"); !same(word, lines[line]) && !strings.Contains(word, lines[line]) {
				t.Errorf("%q: %q, want %q", line, got[i], lines[line])
			}
		}
	})
	t.Run("zsh", func(t *testing.T) {
		dir := t.TempDir()
		cmd := shell(t, "zsh", "-f", "-i")
		master, slave := pty(t)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		defer cmd.Wait()
		defer cmd.Process.Kill()
		seen := watch(master, "ready-here")
		step := func(typed, want string, next <-chan struct{}) {
			t.Helper()
			if _, err := master.Write([]byte(typed)); err != nil {
				t.Fatal(err)
			}
			select {
			case <-next:
			case <-time.After(60 * time.Second):
				t.Fatalf("after %q no %q; seen: %q", typed, want, seen.all())
			}
		}
		step("PS1='% '; unsetopt beep zle_bracketed_paste; autoload -Uz compinit && compinit -u -d "+dir+"/dump && source <(shoal completion zsh); echo ready-''here\r", "ready-here", seen.found)
		for line, want := range lines {
			if want == "" {
				continue
			}
			// Completed, the line is called as an echo of itself.
			full := line[:strings.LastIndexAny(line, " =/")+1] + want
			step("\x15"+line+"\t\x01echo got: \r", "got: "+full, seen.then("got: "+full))
		}
	})
}

func same(got, want string) bool {
	return strings.TrimSpace(got) == want || strings.HasSuffix(got, "/"+want)
}
