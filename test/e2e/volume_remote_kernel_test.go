//go:build kernel

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/test/world"
)

// nfs starts the kernel's NFS server, version 4, with three exports.
func (p *peer) nfs(t *testing.T) {
	for _, m := range []string{"nfsd", "nfsv4", "nfsv3"} {
		if out, err := exec.Command("modprobe", m).CombinedOutput(); err != nil {
			t.Skipf("no NFS in this kernel: %s", out)
		}
	}
	p.run(t, `rm -rf /srv/*; mkdir -p /srv/data/sub /srv/empty /srv/squash; chmod 777 /srv/squash
		cat >/etc/exports <<-END
		/srv/data *(rw,fsid=1,insecure,no_root_squash,no_subtree_check)
		/srv/empty *(rw,fsid=2,insecure,no_root_squash,no_subtree_check)
		/srv/squash *(rw,fsid=3,insecure,root_squash,no_subtree_check)
		END`)
	p.serve(t, "ready", `mount -t nfsd nfsd /proc/fs/nfsd
		mkdir -p /run/rpc_pipefs; mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
		exportfs -ra; nfsdcld; rpc.nfsd -N 3 -G 10 -L 10 2; (sleep 0.1; echo ready) & exec rpc.mountd -F -N 3 -N 2`) // with nfsdcld the server knows that it has to wait for nobody
	t.Cleanup(func() { p.run(t, `mount -t nfsd nfsd /proc/fs/nfsd; rpc.nfsd 0; exportfs -ua`) })
}

// link takes the peer's cable out, or puts it back.
func (p *peer) link(t *testing.T, up bool) {
	t.Helper()
	if err := kernel.In(p.w.outside, func() error {
		l, err := netlink.LinkByName("out0")
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	}); err != nil {
		t.Fatal(err)
	}
}

func (p *peer) file(name string) string {
	b, err := os.ReadFile(filepath.Join(p.root, "srv", name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// volume makes a volume with the local driver.
func (p *peer) volume(name, kind, device, o string) {
	p.w.T.Helper()
	p.w.Must(p.w.Docker("volume", "create", "-o", "type="+kind, "-o", "o="+o, "-o", "device="+device, name))
}

// unmounted says whether the daemon's mount table has nothing of the volume.
func unmounted(t *testing.T, w *world.World, volume string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), w.Dir+"/data/volumes/"+volume+"/") {
		t.Errorf("volume %s is still mounted", volume)
	}
}

// TestNFS: volumes of a real NFS server: used, shared, filled, refused, and the server that goes away and comes back.
func TestNFS(t *testing.T) {
	w := newNetWorld(t)
	p := newPeer(t, w)
	p.nfs(t)
	t.Cleanup(func() { // before the server: a mount without one would hold up what comes after
		p.link(t, true)
		if left := strings.Fields(w.Docker("ps", "-aq").Out); len(left) > 0 {
			w.Docker(append([]string{"rm", "-f"}, left...)...)
		}
	})
	run := func(args ...string) string {
		t.Helper()
		return w.Must(w.Docker(append([]string{"run", "--rm", "--network", "none"}, args...)...))
	}
	at := "addr=" + outsideIP
	p.volume("data", "nfs", ":/srv/data", at+",rw,nfsvers=4")
	run("-v", "data:/d", "toolbox", "sh", "-c", "echo one > /d/f; mkdir /d/sub/deep; echo two > /d/sub/g")
	want(t, "what the server has", p.file("data/f")+p.file("data/sub/g"), "one\ntwo\n")
	want(t, "a part of it", run("--mount", "type=volume,src=data,dst=/d,volume-subpath=sub", "toolbox", "cat", "/d/g"), "two")
	want(t, "only to read", run("-v", "data:/d:ro", "toolbox", "sh", "-c", "cat /d/f; touch /d/x 2>/dev/null || echo refused"), "one\nrefused")
	unmounted(t, w.World, "data")
	w.Must(w.Docker("run", "-d", "--name", "one", "-v", "data:/d", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("run", "-d", "--name", "two", "-v", "data:/d", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("exec", "one", "sh", "-c", "echo three > /d/h"))
	want(t, "seen by the other", w.Must(w.Docker("exec", "two", "cat", "/d/h")), "three")
	wantIn(t, "inspect", w.Must(w.Docker("volume", "inspect", "data")), `"device": ":/srv/data"`, `"type": "nfs"`)
	if r := w.Docker("volume", "rm", "data"); r.Code != 1 || !strings.Contains(r.Err, "in use") {
		t.Errorf("removal while it is used: %+v", r)
	}
	// Without a version: whatever the server speaks.
	p.volume("plain", "nfs", ":/srv/data", at+",rw")
	want(t, "no version named", run("-v", "plain:/d", "toolbox", "cat", "/d/f"), "one")
	p.volume("named", "nfs4", outsideIP+":/srv/data", "soft,timeo=50,noatime")
	want(t, "the server in the device", run("-v", "named:/d", "toolbox", "cat", "/d/f"), "one")
	// Filled from the image, unless nocopy.
	w.Must(w.Docker("build", "-qt", "full", write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM toolbox\nRUN mkdir /c && echo full > /c/f && chown 1000 /c/f\n"})))
	p.volume("empty", "nfs", ":/srv/empty", at+",nfsvers=4.2")
	want(t, "nocopy", run("-v", "empty:/c:nocopy", "full", "ls", "/c"), "")
	want(t, "filled", run("-v", "empty:/c", "full", "stat", "-c", "%u %n", "/c/f"), "1000 /c/f")
	want(t, "filled on the server", p.file("empty/f"), "full\n")
	p.volume("squash", "nfs", ":/srv/squash", at+",nfsvers=4")
	run("-v", "squash:/d:nocopy", "--user", "1234", "toolbox", "touch", "/d/mine")
	w.Must(w.Docker("run", "--rm", "-v", "squash:/d", "toolbox", "rm", "/d/mine"))
	r := w.Docker("run", "--rm", "-v", "squash:/c", "full", "true")
	t.Logf("filling where root is nobody: %+v; %s", r, p.file("squash/f"))
	// Refused by the server.
	p.volume("missing", "nfs", ":/srv/nosuch", at+",nfsvers=4")
	r = w.Docker("run", "--rm", "-v", "missing:/d", "toolbox", "true")
	wantIn(t, "no such export", r.Err, "mount volume missing", "does not exist")
	w.Must(w.Docker("rm", "-f", "two"))

	t.Run("gone", func(t *testing.T) { nfsGone(t, p) })
	w.Must(w.Docker("rm", "-f", "one"))
	w.Must(w.Docker("volume", "rm", "data", "plain", "named", "empty", "squash", "missing"))
	want(t, "volumes", w.Must(w.Docker("volume", "ls", "-q")), "")
}

// nfsGone: the cable is out. What needs the server fails or waits, each by itself; everything else works; afterwards it goes on.
func nfsGone(t *testing.T, p *peer) {
	w := p.w
	bounded := func(what string, limit time.Duration, f func() world.Result) world.Result {
		t.Helper()
		began := time.Now()
		r := f()
		if took := time.Since(began); took > limit {
			t.Errorf("%s took %v: %+v", what, took, r)
		}
		t.Logf("%s: %v, code %d: %s%s", what, time.Since(began).Round(10*time.Millisecond), r.Code, r.Out, r.Err)
		return r
	}
	w.Must(w.Docker("run", "-d", "--name", "writer", "-v", "data:/d", "toolbox", "sleep", "1000"))
	p.link(t, false)
	r := bounded("start while the server is away", 15*time.Second, func() world.Result {
		return w.Docker("run", "--name", "late", "-v", "empty:/d", "toolbox", "cat", "/d/f")
	})
	if r.Code != 125 || !strings.Contains(r.Err, outsideIP) {
		t.Errorf("start while the server is away: %+v", r)
	}
	want(t, "not half-started", w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "late")), "created 0")
	unmounted(t, w.World, "empty")
	// A process of a container that hangs in the server's files, for which nobody else waits.
	stuck := w.Command("docker", "exec", "writer", "sh", "-c", "echo x > /d/new; echo done")
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	for what, args := range map[string][]string{"ps": {"ps", "-as"}, "volume ls": {"volume", "ls"}, "volume inspect": {"volume", "inspect", "data"}, "inspect": {"inspect", "writer"},
		"df": {"system", "df", "-v"}, "another container": {"run", "--rm", "--network", "none", "toolbox", "true"}, "stats": {"stats", "--no-stream"}, "prune": {"volume", "prune", "-f"}} {
		if r := bounded(what, time.Minute, func() world.Result { return w.Docker(args...) }); r.Code != 0 {
			t.Errorf("%s: %+v", what, r)
		}
	}
	w.KillDaemon()
	began := time.Now()
	w.StartDaemon()
	t.Logf("a daemon's start: %v", time.Since(began))
	bounded("stop of a container that uses it", time.Minute, func() world.Result { return w.Docker("stop", "-t", "1", "writer") })
	bounded("removal", time.Minute, func() world.Result { return w.Docker("rm", "-f", "writer") })
	stuck.Process.Kill()
	stuck.Wait()
	p.link(t, true)
	want(t, "the container that was there goes on", w.Must(w.Docker("exec", "one", "cat", "/d/f")), "one")
	wantIn(t, "start again", w.Must(w.Docker("start", "-a", "late")), "full")
	w.Must(w.Docker("rm", "late"))
}

// TestCIFS: a share of a real Samba server, with a password that is nowhere to be read afterwards.
func TestCIFS(t *testing.T) {
	w := newNetWorld(t)
	p := newPeer(t, w)
	if out, err := exec.Command("modprobe", "cifs").CombinedOutput(); err != nil {
		t.Skipf("no CIFS in this kernel: %s", out)
	}
	p.run(t, `rm -rf /srv/*; mkdir -p /srv/share/sub; echo hello >/srv/share/f
		id u >/dev/null 2>&1 || useradd -M u; chown -R u /srv/share
		cat >/etc/samba/smb.conf <<-END
		[global]
		server role = standalone server
		log level = 0
		disable netbios = yes
		smb ports = 445
		load printers = no
		[share]
		path = /srv/share
		read only = no
		END
		printf 'sesame7\nsesame7\n' | smbpasswd -s -a u >/dev/null`)
	p.serve(t, "ready", `(until smbclient -N -L 127.0.0.1 >/dev/null 2>&1 || ss -ltn | grep -q :445; do sleep 0.1; done; echo ready) & exec smbd -F --no-process-group --debug-stdout </dev/null`)
	p.volume("share", "cifs", "//"+outsideIP+"/share", "username=u,password=sesame7,uid=1000,file_mode=0640")
	run := func(volume, script string) world.Result {
		return w.Docker("run", "--rm", "--network", "none", "-v", volume+":/d", "toolbox", "sh", "-c", script)
	}
	want(t, "used", w.Must(run("share", "cat /d/f; echo new > /d/g; stat -c '%u %a' /d/g")), "hello\n1000 640")
	want(t, "what the server has", p.file("share/g"), "new\n")
	unmounted(t, w.World, "share")
	p.volume("wrong", "cifs", "//"+outsideIP+"/share", "username=u,password=sesame8")
	r := run("wrong", "true")
	wantIn(t, "a wrong password", r.Err, "mount volume wrong", "user and password")
	p.volume("nosuch", "cifs", "//"+outsideIP+"/nosuch", "username=u,password=sesame7")
	wantIn(t, "no such share", run("nosuch", "true").Err, "mount volume nosuch", "does not exist")
	w.Must(w.Docker("run", "-d", "--name", "user", "-v", "share:/d", "toolbox", "sleep", "1000"))
	w.Docker("run", "--name", "failed", "-v", "wrong:/d", "toolbox", "true")
	mounts, _ := os.ReadFile("/proc/mounts")
	for what, text := range map[string]string{"the daemon's log": w.DaemonLog(), "inspect": w.Must(w.Docker("inspect", "user")), "the failure in inspect": w.Docker("inspect", "failed").Out,
		"the mount table": string(mounts), "the container": w.Must(w.Docker("exec", "user", "sh", "-c", "cat /proc/mounts /proc/*/cmdline")), "the error": r.Err,
		"events": w.Must(w.Docker("events", "--since", "1h", "--until", "0s"))} {
		if strings.Contains(text, "sesame") {
			t.Errorf("%s has the password: %s", what, text)
		}
	}
	w.Must(w.Docker("rm", "-f", "user"))
	w.Docker("rm", "-f", "failed")
	unmounted(t, w.World, "share")
	w.Must(w.Docker("volume", "rm", "share", "wrong", "nosuch"))
}
