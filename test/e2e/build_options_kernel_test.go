//go:build kernel

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// TestBuildSquash: all that a build adds is one layer on the base's, with the same files, and the history stays.
func TestBuildSquash(t *testing.T) {
	w := world.New(t)
	file := "FROM toolbox\nCOPY f /f\nRUN echo kept > /kept; rm -rf /etc/passwd\nRUN rm /f; mkdir -m 700 /d; ln -s kept /link; chown 5:6 /kept\nENV A=1\n"
	dir := write(t, t.TempDir(), map[string]string{"f": "x", "Dockerfile": file})
	w.Must(w.Shoal("build", "-q", "--squash", "-t", "squashed", dir))
	layers := func(image string) int {
		return strings.Count(w.Must(w.Shoal("inspect", "-f", "{{json .RootFS.Layers}}", image)), "sha256:")
	}
	base := layers("toolbox")
	if got := layers("squashed"); got != base+1 {
		t.Errorf("%d layers on a base of %d", got, base)
	}
	if out := w.Must(w.Shoal("run", "--rm", "squashed", "sh", "-c", "[ -e /f ] || [ -e /etc/passwd ] || echo gone; cat /link; stat -c '%u %g %a' /kept /d; echo $A")); out != "gone\nkept\n5 6 644\n0 0 700\n1" {
		t.Errorf("files of the squashed image: %s", out)
	}
	if h := w.Must(w.Shoal("history", "--no-trunc", "squashed")); !strings.Contains(h, "rm /f; mkdir") || !strings.Contains(h, "squashed layers") {
		t.Errorf("history: %s", h)
	}
	archive := world.Archive(map[string]string{"f": "x", "Dockerfile": file})
	if r := w.Build("squash=1&t=classic", archive); r.Code != 200 || layers("classic") != base+1 {
		t.Errorf("classic: %d %s", r.Code, r.Body)
	}
	w.Must(w.Shoal("build", "-q", "--squash", "-t", "own", write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM scratch\nCOPY --from=toolbox /bin /bin\nCOPY --from=toolbox /sbin /sbin\n"})))
	if got := layers("own"); got != 1 {
		t.Errorf("without a base: %d layers", got)
	}
	w.Must(w.Shoal("run", "--rm", "own", "/bin/sh", "-c", "true"))
	out := filepath.Join(t.TempDir(), "oci.tar")
	w.Must(w.Shoal("build", "-q", "--squash", "-t", "archived", "-o", "type=oci,dest="+out, dir))
	w.Must(w.Shoal("load", "-i", out))
	if got := layers("archived"); got != base+1 {
		t.Errorf("in an archive: %d layers", got)
	}
	if r := w.Shoal("build", "--squash", "-o", t.TempDir(), dir); r.Code == 0 || !strings.Contains(r.Err, "no layers") {
		t.Errorf("squash into a directory: %+v", r)
	}
}

// TestBuildHosts: --add-host, also for the host itself, and the client's proxies reach the steps and stay out of the image.
func TestBuildHosts(t *testing.T) {
	w := world.New(t)
	if err := os.MkdirAll(w.Dir+"/config", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Dir+"/config/config.json", []byte(`{"proxies":{"default":{"httpProxy":"http://proxy.test:1"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	file := "FROM toolbox\nRUN cat /etc/hosts; echo proxy $http_proxy; ip route\n"
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": file})
	r := w.Shoal("build", "--progress", "plain", "-t", "p", "--add-host", "there:192.0.2.7", "--add-host", "gw:host-gateway", "--add-host", "six=[2001:db8::1]", dir)
	gateway := w.Must(w.Shoal("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"))
	for _, want := range []string{"192.0.2.7\tthere", gateway + "\tgw", "2001:db8::1\tsix", "proxy http://proxy.test:1"} {
		if !strings.Contains(r.Err, want) {
			t.Errorf("want %q in %s", want, r.Err)
		}
	}
	if all := w.Must(w.Shoal("history", "--no-trunc", "p")) + w.Must(w.Shoal("inspect", "p")); strings.Contains(all, "proxy.test") {
		t.Errorf("the proxy is in the image: %s", all)
	}
	c := w.Build("extrahosts=gw:host-gateway&extrahosts=there:192.0.2.7", world.Archive(map[string]string{"Dockerfile": file}))
	if !strings.Contains(string(c.Body), gateway+`\tgw`) || !strings.Contains(string(c.Body), `192.0.2.7\tthere`) {
		t.Errorf("classic: %d %s", c.Code, c.Body)
	}
}

// TestBuildPolicy: daemon.json says what is kept of the build cache and what steps may ask for.
func TestBuildPolicy(t *testing.T) {
	w := world.New(t)
	configure := func(text string) error {
		t.Helper()
		w.StopDaemon()
		dir := write(t, t.TempDir(), map[string]string{"daemon.json": text})
		w.Flag("--config-file", dir+"/daemon.json")
		return w.TryStartDaemon()
	}
	for text, want := range map[string]string{
		`{"builder":{"gc":{"policy":[{"filter":["nosuch=1"]}]}}}`: "nosuch",
		`{"builder":{"gc":{"defaultKeepStorage":"much"}}}`:        "not a size",
		`{"builder":{"gcc":{}}}`:                                  "gcc",
	} {
		if err := configure(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", text, want, err)
		}
	}
	if err := configure(`{"builder":{"gc":{"enabled":true,"policy":[{"keepStorage":"1MB","filter":["unused-for=1h"]},{"all":true,"maxUsedSpace":"10GB"}]},"entitlements":{"network-host":false,"security-insecure":true}}}`); err != nil {
		t.Fatal(err)
	}
	file := "FROM toolbox\nRUN --security=insecure grep CapEff /proc/self/status\n"
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": file})
	if r := w.Shoal("build", "--progress", "plain", "--allow", "security.insecure", dir); r.Code != 0 || strings.Contains(r.Err, "00000000a80425fb") {
		t.Errorf("a step with all rights: %+v", r)
	}
	if r := w.Shoal("build", dir); r.Code == 0 || !strings.Contains(r.Err, "security.insecure") {
		t.Errorf("a step with all rights that the client does not allow: %+v", r)
	}
	if r := w.Shoal("build", "--network", "host", dir); r.Code == 0 || !strings.Contains(r.Err, "network.host") {
		t.Errorf("the host's network against the policy: %+v", r)
	}
}

// TestBuildRemapped: with --userns-remap a step's root is nobody on the host, and what it writes is as without.
func TestBuildRemapped(t *testing.T) {
	w := world.New(t, "--userns-remap", "400000+65536")
	dir := write(t, t.TempDir(), map[string]string{"f": "context\n", "sec": "hush\n", "Dockerfile": `FROM toolbox AS base
RUN cat /proc/self/uid_map > /map; touch /mine; mkdir /w && chown 7:8 /w
FROM base AS other
RUN echo other > /of-other && chmod 600 /of-other
FROM base
COPY --chown=7:8 f /w/f
RUN --mount=type=cache,target=/cache --mount=type=secret,id=s --mount=type=bind,target=/ctx --mount=type=tmpfs,target=/t <<SCRIPT
set -e
echo x > /cache/x; cat /run/secrets/s /ctx/f; echo > /t/x
stat -c '%n %u %g' /mine /w /w/f /cache/x /ctx/f /run/secrets/s
SCRIPT
RUN --mount=type=cache,target=/cache cat /cache/x > /cached
RUN --mount=type=bind,from=other,target=/other ls /other/of-other
RUN --network=none ls /sys/class/net > /nets
USER 7
RUN id -u > /w/id
COPY --from=other /of-other /o
`})
	r := w.Shoal("build", "--progress", "plain", "--secret", "id=s,src="+dir+"/sec", "-t", "mapped", dir)
	for _, want := range []string{"/mine 0 0", "/w 7 8", "/w/f 7 8", "/cache/x 0 0", "/ctx/f 0 0", "/run/secrets/s 0 0", "hush", "context"} {
		if r.Code != 0 || !strings.Contains(r.Err, want) {
			t.Fatalf("want %q: %+v", want, r)
		}
	}
	out := w.Must(w.Shoal("run", "--rm", "--user", "0", "--userns", "host", "mapped", "sh", "-c", "cat /map /w/id /cached /nets; stat -c '%u' /mine /w /o; for d in /ctx /cache /t /other; do [ ! -e $d ] || echo left $d; done"))
	if strings.Join(strings.Fields(out), " ") != "0 400000 65536 7 x lo 0 7 0" {
		t.Errorf("what the steps left: %s", out)
	}
	if r := w.Shoal("build", "--network", "host", "--no-cache", dir); r.Code == 0 || !strings.Contains(r.Err, "userns-remap") {
		t.Errorf("the host's network: %+v", r)
	}
}
