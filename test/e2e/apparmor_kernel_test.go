//go:build kernel

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// TestAppArmor: the default profile confines, another one and none can be chosen, one that is not there is refused.
func TestAppArmor(t *testing.T) {
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") {
		t.Skip("this kernel has no AppArmor; `make vm ARGS=-peer` runs this in a virtual machine that has it")
	}
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		t.Skip("no apparmor_parser")
	}
	w := world.New(t)
	t.Cleanup(func() { removeProfiles("shoal-default", "shoal-test-mine") })
	current := func(args ...string) string {
		t.Helper()
		return w.Must(w.Docker(append(append([]string{"run", "--rm", "--network", "none"}, args...), "toolbox", "cat", "/proc/self/attr/current")...))
	}
	want(t, "by default", current(), "shoal-default (enforce)")
	want(t, "privileged", current("--privileged"), "unconfined")
	want(t, "unconfined", current("--security-opt", "apparmor=unconfined"), "unconfined")
	wantIn(t, "info", w.Must(w.Docker("info", "--format", "{{.SecurityOptions}}")), "name=apparmor")
	// What no other barrier forbids: this one does.
	escape := []string{"--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "toolbox", "sh", "-c", "mkdir /m && mount -t tmpfs none /m && echo mounted || echo refused"}
	run := func(args ...string) string {
		return w.Docker(append([]string{"run", "--rm", "--network", "none"}, args...)...).Out
	}
	want(t, "a mount under the default profile", run(escape...), "refused\n")
	want(t, "a mount without", run(append([]string{"--security-opt", "apparmor=unconfined"}, escape...)...), "mounted\n")
	load(t, "profile shoal-test-mine flags=(attach_disconnected,mediate_deleted) {\n  file,\n  network,\n  capability,\n  signal,\n  deny /etc/passwd r,\n}\n")
	want(t, "a profile of the administrator", current("--security-opt", "apparmor=shoal-test-mine"), "shoal-test-mine (enforce)")
	want(t, "what it forbids", run("--security-opt", "apparmor=shoal-test-mine", "toolbox", "sh", "-c", "cat /etc/passwd 2>/dev/null || echo refused"), "refused\n")
	r := w.Docker("run", "--rm", "--network", "none", "--security-opt", "apparmor=shoal-test-nosuch", "toolbox", "true")
	if r.Code != 125 {
		t.Errorf("a profile that is not loaded: %+v", r)
	}
	wantIn(t, "a profile that is not loaded", r.Err, "shoal-test-nosuch", "not loaded")
	w.Must(w.Docker("run", "-d", "--name", "box", "--network", "none", "toolbox", "sleep", "1000"))
	want(t, "inspect", w.Must(w.Docker("inspect", "-f", "{{.AppArmorProfile}}", "box")), "shoal-default")
	want(t, "exec", w.Must(w.Docker("exec", "box", "cat", "/proc/self/attr/current")), "shoal-default (enforce)")
	want(t, "exec with all rights", w.Must(w.Docker("exec", "--privileged", "box", "cat", "/proc/self/attr/current")), "unconfined")
	want(t, "end", w.Must(w.Docker("stop", "-t", "5", "box")), "box") // a signal from outside reaches it
	// Somebody unloads the default profile: the next daemon loads it again.
	w.StopDaemon()
	removeProfiles("shoal-default")
	w.StartDaemon()
	want(t, "loaded again", current(), "shoal-default (enforce)")
	for _, f := range strings.Fields(w.Shoal("doctor").Out) {
		if f == "no-mac" || f == "apparmor-parser-missing" {
			t.Errorf("doctor: %s", f)
		}
	}
}

// load gives the kernel a profile.
func load(t *testing.T, profile string) {
	t.Helper()
	c := exec.Command("apparmor_parser", "-Kr")
	c.Stdin = strings.NewReader(profile)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func removeProfiles(names ...string) {
	for _, n := range names {
		os.WriteFile("/sys/kernel/security/apparmor/.remove", []byte(n), 0)
	}
}
