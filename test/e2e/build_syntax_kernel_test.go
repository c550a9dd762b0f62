//go:build kernel

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// syntaxCases have one feature of the Dockerfile each. Most look at their result themselves: a wrong one ends the build.
// URL stands for a web server that has the context's files, SUM for the digest of its file "f".
var syntaxCases = []struct {
	name, file string
	args       []string
	inspect    string // a format; its output must be want
	says       string // what the build must say when it goes well
	want       string // else the build must fail with it, when it is not ""
}{
	{name: "heredocs", file: `FROM toolbox
ARG A=arg
RUN <<EOF
[ $A = arg ] || exit 1
echo one > /one
EOF
RUN <<-'EOT' sh -e
	[ "$(cat /one)" = one ]
EOT
COPY <<first <<"second" /d/
$A
first
$A
second
RUN [ "$(cat /d/first)" = arg ] && [ "$(cat /d/second)" = '$A' ]
`},
	{name: "COPY", file: `FROM toolbox AS from
COPY f /linked/f
FROM toolbox
COPY --link --from=from /linked /l/
COPY --from=0 /linked/f /zero
COPY --from=whoami / /whoami/
COPY --parents dir/./sub/a dir/sub/b /p/
COPY --exclude=*.md --exclude=sub dir /x/
COPY --chmod=604 --chown=7:8 f /m
COPY --chmod=u=rwX,go=r dir /sym
COPY ["f", "with space", "/s/"]
COPY --chown=9 f /nine
RUN set -e; [ "$(cat /l/f)" = file ]; [ "$(cat /zero)" = file ]; [ -e /whoami/whoami ] || [ -n "$(ls /whoami)" ]; \
    [ -e /p/sub/a ]; [ -e /p/dir/sub/b ]; [ -e /x/c.txt ]; [ ! -e /x/readme.md ]; [ ! -e /x/sub ]; \
    [ "$(stat -c '%a %u %g' /m)" = "604 7 8" ]; [ "$(stat -c %a /sym/c.txt)" = 644 ]; [ "$(stat -c %a /sym/sub)" = 744 ]; \
    [ -e "/s/with space" ]; [ "$(stat -c '%u %g' /nine)" = "9 9" ]
`},
	{name: "ADD", file: `FROM toolbox
ADD URL/f /fetched
ADD --checksum=sha256:SUM --chmod=600 URL/f /checked
ADD t.tar /unpacked/
ADD --unpack=false t.tar /packed/
ADD --unpack=true URL/t.tar /web/
RUN set -e; [ "$(cat /fetched /checked)" = "$(printf 'file\nfile')" ]; [ "$(stat -c %a /checked)" = 600 ]; [ "$(cat /unpacked/in)" = tar ]; [ -e /packed/t.tar ]; [ "$(cat /web/in)" = tar ]
`},
	{name: "ADD with a wrong checksum", file: "FROM toolbox\nADD --checksum=sha256:" + strings.Repeat("0", 64) + " URL/f /f\n", want: "digest mismatch"},
	{name: "mounts", file: `FROM toolbox AS other
RUN echo other > /o
FROM toolbox
RUN --mount=type=bind,source=f,target=/b/f [ "$(cat /b/f)" = file ]
RUN --mount=type=bind,from=other,source=/o,target=/o [ "$(cat /o)" = other ]
RUN --mount=type=bind,target=/w,rw echo changed > /w/f
RUN --mount=target=/w [ "$(cat /w/f)" = file ]
RUN --mount=type=cache,id=c1,target=/c,mode=0700,uid=5,gid=6,sharing=locked echo kept > /c/k; [ "$(stat -c '%a %u %g' /c)" = "700 5 6" ]
RUN --mount=type=cache,id=c1,target=/c2,mode=0700,uid=5,gid=6,sharing=locked [ "$(cat /c2/k)" = kept ]
RUN --mount=type=cache,target=/p,sharing=private,from=other,source=/ [ "$(cat /p/o)" = other ]
RUN --mount=type=tmpfs,target=/t,size=1m ! dd if=/dev/zero of=/t/x bs=1k count=2000 2>/dev/null
RUN --mount=type=secret,id=s,target=/sec,mode=0444,uid=7 --mount=type=secret,id=s,env=S [ "$(cat /sec)$S" = hushhush ] && [ "$(stat -c '%a %u' /sec)" = "444 7" ]
RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]
RUN --mount=type=ssh [ ! -S "$SSH_AUTH_SOCK" ]
`},
	{name: "a secret that must be there", file: "FROM toolbox\nRUN --mount=type=secret,id=none,required true\n", want: "secret none: not found"},
	{name: "an agent that must be there", file: "FROM toolbox\nRUN --mount=type=ssh,required true\n", want: "forwarded from the client"},
	{name: "networks", args: []string{"--allow", "network.host"}, file: `FROM toolbox
RUN --network=none [ "$(ls /sys/class/net)" = lo ]
RUN --network=default ls /sys/class/net | grep -q eth0
RUN --network=host ls /sys/class/net | grep -qv eth0
`},
	{name: "the host's network without leave", file: "FROM toolbox\nRUN --network=host true\n", want: "network.host is not allowed"},
	{name: "security=insecure", file: "FROM toolbox\nRUN --security=insecure true\n", want: "security.insecure is not allowed"},
	{name: "security=sandbox", file: "FROM toolbox\nRUN --security=sandbox grep -q 'CapEff:.*a80425fb' /proc/self/status\n"},
	{name: "a device that is not there", file: "FROM toolbox\nRUN --device=vendor.com/none=0,required true\n", want: `required device "vendor.com/none=0" is not registered`},
	{name: "a device that is not needed", file: "FROM toolbox\nRUN --device=vendor.com/none=0 true\n"},
	{name: "a device without leave", file: "FROM toolbox\nRUN --device=vendor.com/thing=1 true\n", want: "vendor.com/thing=1 is requested by the build but not allowed"},
	{name: "a device", args: []string{"--allow", "device=vendor.com/thing=1"}, file: "FROM toolbox\nRUN --device=vendor.com/thing=1 [ -c /dev/vendor1 ] && [ $VENDOR = seen ]\nRUN [ ! -e /dev/vendor1 ]\n"},
	{name: "arguments", args: []string{"--build-arg", "GIVEN=given", "--build-arg", "HTTP_PROXY=http://p"}, file: `ARG BASE=toolbox TAG=latest
FROM ${BASE}:${TAG} AS first
ARG TAG
ARG GIVEN=default OTHER=${GIVEN}-x
ARG TARGETARCH TARGETOS BUILDPLATFORM TARGETSTAGE
ENV E=${UNSET:-fallback} P=${GIVEN:+plus} C=${GIVEN#gi} D=${GIVEN%en} R=${GIVEN/v/w} N=$NOTHING
RUN set -e; [ $TAG = latest ]; [ $GIVEN = given ]; [ $OTHER = given-x ]; [ -n "$TARGETARCH" ]; [ $TARGETOS = linux ]; [ $BUILDPLATFORM = linux/$TARGETARCH ]; \
    [ "$E $P $C $D $R" = "fallback plus ven giv giwen" ]; [ -z "$N" ]; [ $HTTP_PROXY = http://p ]; [ -z "$BASE" ]
FROM first
RUN set -e; [ -n "$E" ]; [ $TAG = latest ]
FROM toolbox
RUN [ -z "$GIVEN" ]
`},
	{name: "an argument that must be there", file: "FROM toolbox\nARG X\nENV Y=${X:?say which}\n", want: "say which"},
	{name: "onbuild", file: `FROM toolbox AS base
ONBUILD ARG V=on
ONBUILD COPY f /on
ONBUILD RUN echo $V >> /on
FROM base
RUN [ "$(cat /on)" = "$(printf 'file\non')" ]
`},
	{name: "configuration", file: `# escape=` + "`" + `
FROM toolbox AS last
MAINTAINER somebody
SHELL ["/bin/sh", "-e", "-c"]
HEALTHCHECK --interval=3s --timeout=4s --start-period=5s --start-interval=6s --retries=7 CMD true
STOPSIGNAL SIGUSR1
USER 3:4
WORKDIR /a
WORKDIR b
EXPOSE 80 81/udp 90-91/tcp
VOLUME ["/v1"]
VOLUME /v2 /v3
ENV one=1 two="2 2"
LABEL l1=x ` + "`" + `
      l2="y z"
CMD echo hi
ENTRYPOINT ["e", "f"]
`, inspect: `{{.Config.Shell}} {{.Config.Healthcheck}} {{.Config.StopSignal}} {{.Config.User}} {{.Config.WorkingDir}} {{len .Config.ExposedPorts}} {{len .Config.Volumes}} {{index .Config.Env 1}} {{index .Config.Env 2}} {{.Config.Labels.l2}} {{.Config.Cmd}} {{.Config.Entrypoint}} {{.Author}}`,
		want: `[/bin/sh -e -c] {[CMD-SHELL true] 3s 4s 5s 6s 7} SIGUSR1 3:4 /a/b 4 3 one=1 two=2 2 y z [/bin/sh -e -c echo hi] [e f] somebody`},
	{name: "no health check", file: "FROM toolbox\nHEALTHCHECK NONE\n", inspect: "{{.Config.Healthcheck.Test}}", want: "[NONE]"},
	{name: "platforms", args: []string{"--platform", "linux/s390x"}, file: "FROM --platform=$BUILDPLATFORM toolbox AS b\nARG TARGETPLATFORM\nRUN [ $TARGETPLATFORM = linux/s390x ] && echo x > /x\nFROM scratch\nCOPY --from=b /x /\n", inspect: "{{.Os}}/{{.Architecture}}", want: "linux/s390x"},
	{name: "syntax", file: "# syntax=docker/dockerfile:1\nFROM toolbox\nRUN true\n"},
	{name: "syntax, labs", file: "#syntax = docker.io/docker/dockerfile:1.7-labs\nFROM toolbox\nCOPY --parents f /\n"},
	{name: "syntax by an argument", args: []string{"--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1"}, file: "FROM toolbox\nRUN true\n"},
	{name: "a newer syntax", file: "# syntax=docker/dockerfile:1.999\nFROM toolbox\n", want: "docker.io/docker/dockerfile:1.999"},
	{name: "a syntax that is not here", file: "# syntax=example.test/other:1\nFROM toolbox\n", want: "example.test/other:1"},
	{name: "checks that fail the build", file: "# check=error=true\nFROM toolbox as x\nRUN true\n", want: "lint violation found"},
	{name: "checks that are skipped", file: "# check=skip=all;error=true\nFROM toolbox as x\nRUN true\n"},
	{name: "a name that is none", args: []string{"-t", "UPPER"}, file: "FROM toolbox\n", want: "-t UPPER: "},
	{name: "--check, nothing found", args: []string{"--check"}, file: "FROM toolbox AS x\nRUN exit 1\n", says: "no warnings found"},
	{name: "--check", args: []string{"--check"}, file: "FROM toolbox as x\nRUN true\n", want: "FromAsCasing"},
	{name: "--call outline", args: []string{"--call", "outline"}, file: "FROM toolbox AS x\nARG WITH=default\nRUN --mount=type=secret,id=key true\n", says: "key"},
	{name: "--call targets", args: []string{"--call", "targets"}, file: "# first is so\nFROM toolbox AS first\nFROM first AS second\n", says: "second (default)"},
	{name: "a misspelt instruction", file: "FROM toolbox\n\nRNU true\n", want: "Dockerfile:3"},
	{name: "a step that fails", file: "FROM toolbox\nRUN true\nRUN exit 7\n", want: "Dockerfile:3"},
	{name: "a file that is not there", file: "FROM toolbox\nCOPY nowhere /\n", want: "Dockerfile:2"},
	{name: "a stage that is not there", file: "FROM toolbox\nCOPY --from=nowhere / /\n", want: "Dockerfile:2"},
	{name: "a flag that is none", file: "FROM toolbox\nCOPY --nonsense f /\n", want: "unknown flag: --nonsense"},
	{name: "a heredoc without end", file: "FROM toolbox\nRUN <<EOF\ntrue\n", want: "unterminated heredoc"},
}

// TestBuildSyntax builds all of them with shoal build; the daemon has no way to any registry.
func TestBuildSyntax(t *testing.T) {
	specs := t.TempDir()
	w := world.New(t, "--cdi-spec-dir", specs)
	write(t, specs, map[string]string{"thing.json": strings.NewReplacer("%KIND%", "vendor.com/thing", "%DIR%", specs).Replace(cdiSpec)})
	w.Must(w.Shoal("run", "--rm", "whoami", "-h")) // here before a stage asks for it
	inner := string(world.Archive(map[string]string{"in": "tar\n"}))
	files := map[string]string{"f": "file\n", "with space": "x", "t.tar": inner, "dir/sub/a": "a", "dir/sub/b": "b", "dir/c.txt": "c", "dir/readme.md": "m"}
	served := write(t, t.TempDir(), files)
	subst := strings.NewReplacer("URL", serveFiles(t, w, served), "SUM", fmt.Sprintf("%x", sha256.Sum256([]byte("file\n"))))
	secret := t.TempDir() + "/s"
	if err := os.WriteFile(secret, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range syntaxCases {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, t.TempDir(), files)
			write(t, dir, map[string]string{"Dockerfile": subst.Replace(c.file)})
			tag := fmt.Sprintf("syntax:%d", i)
			r := w.Shoal(append(append([]string{"build", "--progress", "plain", "-t", tag, "--secret", "id=s,src=" + secret}, c.args...), dir)...)
			if c.inspect != "" || c.want == "" {
				if r.Code != 0 {
					t.Fatalf("exit code %d\n%s", r.Code, r.Err)
				}
				if !strings.Contains(r.Out, c.says) {
					t.Errorf("said\n%s\nwant %q", r.Out, c.says)
				}
				if c.inspect == "" {
					return
				}
				if got := w.Must(w.Shoal("inspect", "-f", c.inspect, tag)); got != c.want {
					t.Errorf("the image has\n%s\nwant\n%s", got, c.want)
				}
				return
			}
			if r.Code == 0 || !strings.Contains(r.Out+r.Err, c.want) {
				t.Errorf("exit code %d, want a message with %q:\n%s%s", r.Code, c.want, r.Out, r.Err)
			}
		})
	}
}
