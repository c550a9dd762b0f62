package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	moby "github.com/moby/moby/client"

	"github.com/shoalhq/shoal/model"
)

func mustCreate(t *testing.T, c *moby.Client, name string, tty bool) string {
	t.Helper()
	res, err := c.ContainerCreate(context.Background(), moby.ContainerCreateOptions{Name: name,
		Config: &container.Config{Image: "whoami", Cmd: []string{"say", "hello"}, Tty: tty, OpenStdin: true}})
	if err != nil {
		t.Fatal(err)
	}
	return res.ID
}

// What "docker run -i" does: create, attach, wait, start, talk, exit code.
func TestRunLikeAClient(t *testing.T) {
	for _, tty := range []bool{false, true} {
		f := newFake()
		c, _ := serve(t, f)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		id := mustCreate(t, c, "web", tty)
		att, err := c.ContainerAttach(ctx, id, moby.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		wait := c.ContainerWait(ctx, id, moby.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
		if _, err := c.ContainerStart(ctx, id, moby.ContainerStartOptions{}); err != nil {
			t.Fatal(err)
		}
		att.Conn.Write([]byte("typed\n"))
		att.CloseWrite()
		var out, errOut bytes.Buffer
		if tty {
			io.Copy(&out, att.Reader)
			if out.String() != "say hello\nto stderr\ntyped\n" {
				t.Errorf("terminal: %q", out.String())
			}
		} else {
			stdcopy.StdCopy(&out, &errOut, att.Reader)
			if out.String() != "say hello\ntyped\n" || errOut.String() != "to stderr\n" {
				t.Errorf("%q %q", out.String(), errOut.String())
			}
		}
		att.Close()
		select {
		case res := <-wait.Result:
			if res.StatusCode != 7 {
				t.Error("exit code", res.StatusCode)
			}
		case err := <-wait.Error:
			t.Error(err)
		}
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f)
	ctx := context.Background()
	_, err := c.ContainerInspect(ctx, "nobody", moby.ContainerInspectOptions{})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such container: nobody") {
		t.Error(err)
	}
	mustCreate(t, c, "web", false)
	if _, err = c.ContainerCreate(ctx, moby.ContainerCreateOptions{Name: "web", Image: "i"}); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	if _, err = c.ContainerStop(ctx, "web", moby.ContainerStopOptions{}); err != nil { // 304 is no error
		t.Error(err)
	}
	mustCreate(t, c, "refuses", false)
	if _, err = c.ContainerAttach(ctx, "refuses", moby.ContainerAttachOptions{Stream: true}); err == nil {
		t.Error("attach to a container that refuses succeeded")
	}
	if _, err = c.ServiceList(ctx, moby.ServiceListOptions{}); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not a swarm manager") {
		t.Error(err)
	}
	if _, err = c.ImagePull(ctx, "a/b", moby.ImagePullOptions{}); !errdefs.IsNotImplemented(err) {
		t.Error(err)
	}
}

// An error after the upgrade reaches the client as text on standard error.
func TestLateErrorIsTold(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f)
	id := mustCreate(t, c, "fails", false)
	att, err := c.ContainerAttach(context.Background(), id, moby.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer att.Close()
	c.ContainerStart(context.Background(), id, moby.ContainerStartOptions{})
	var out, errOut bytes.Buffer
	stdcopy.StdCopy(&out, &errOut, att.Reader)
	if !strings.Contains(errOut.String(), "the stream broke") {
		t.Errorf("%q", errOut.String())
	}
}

func TestExecLogsStatsTop(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	id := mustCreate(t, c, "web", false)
	c.ContainerStart(ctx, id, moby.ContainerStartOptions{})

	ex, err := c.ExecCreate(ctx, id, moby.ExecCreateOptions{Cmd: []string{"ls", "-l"}, AttachStdout: true, AttachStderr: true})
	if err != nil {
		t.Fatal(err)
	}
	att, err := c.ExecAttach(ctx, ex.ID, moby.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	stdcopy.StdCopy(&out, &errOut, att.Reader)
	att.Close()
	if out.String() != "ls -l\n" {
		t.Errorf("%q", out.String())
	}
	if e, err := c.ExecInspect(ctx, ex.ID, moby.ExecInspectOptions{}); err != nil || e.ExitCode != 3 {
		t.Error(e, err)
	}

	logs, err := c.ContainerLogs(ctx, id, moby.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Details: true, Tail: "5", Since: "1700000000.5"})
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	errOut.Reset()
	stdcopy.StdCopy(&out, &errOut, logs)
	logs.Close()
	if lines := strings.Split(out.String(), "\n"); len(lines) != 1001 || lines[999] != "2023-11-14T22:13:20.000000005Z k=v out 999" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-2])
	}
	if errOut.String() != "2023-11-14T22:13:20.000000005Z  err end\n" {
		t.Errorf("%q", errOut.String())
	}
	if o := f.last.(model.LogOptions); o.Tail != 5 || o.Since.UnixNano() != 1700000000500000000 {
		t.Errorf("%+v", o)
	}

	st, err := c.ContainerStats(ctx, id, moby.ContainerStatsOptions{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	var s container.StatsResponse
	if err := json.NewDecoder(st.Body).Decode(&s); err != nil || s.Name != "/web" || s.MemoryStats.Usage != 1<<20 {
		t.Errorf("%+v %v", s, err)
	}
	st.Body.Close()
	if top, err := c.ContainerTop(ctx, id, moby.ContainerTopOptions{}); err != nil || len(top.Processes) != 1 {
		t.Error(top, err)
	}
	if _, err := c.ContainerResize(ctx, id, moby.ContainerResizeOptions{Height: 10, Width: 20}); err != nil || f.last != [2]uint{10, 20} {
		t.Error(f.last, err)
	}
}

// A stats stream outlives the container's end and goes on with its next start.
func TestStatsOfStoppedContainer(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	id := mustCreate(t, c, "web", false)
	st, err := c.ContainerStats(ctx, id, moby.ContainerStatsOptions{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Body.Close()
	dec := json.NewDecoder(st.Body)
	var s container.StatsResponse
	if err := dec.Decode(&s); err != nil || !s.Read.IsZero() {
		t.Fatal(s.Read, err)
	}
	c.ContainerStart(ctx, id, moby.ContainerStartOptions{})
	if err := dec.Decode(&s); err != nil || s.Read.IsZero() {
		t.Fatal(s.Read, err)
	}
	c.ContainerStop(ctx, id, moby.ContainerStopOptions{})
	c.ContainerRemove(ctx, id, moby.ContainerRemoveOptions{})
	for err == nil {
		err = dec.Decode(&s)
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestEventsPastAndLive(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	id := mustCreate(t, c, "web", false)
	filters := moby.Filters{}.Add("type", "container").Add("container", "web").Add("event", "create", "start")
	ev := c.Events(ctx, moby.EventsListOptions{Since: "1", Filters: filters})
	next := func(want events.Action) {
		t.Helper()
		select {
		case m := <-ev.Messages:
			if m.Action != want || m.Actor.ID != id {
				t.Errorf("%+v", m)
			}
		case err := <-ev.Err:
			t.Fatal(err)
		}
	}
	next("create")
	f.event("image", "tag", "sha256:1", nil)
	c.ContainerStart(ctx, id, moby.ContainerStartOptions{})
	next("start")
	past := c.Events(ctx, moby.EventsListOptions{Since: "1", Until: "2100000000"})
	if m := <-past.Messages; m.Action != "create" {
		t.Error(m)
	}
}

func TestFilesAndImages(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f)
	ctx := context.Background()
	id := mustCreate(t, c, "web", false)
	st, err := c.ContainerStatPath(ctx, id, moby.ContainerStatPathOptions{Path: "/etc/motd"})
	if err != nil || st.Stat.Name != "motd" || st.Stat.Mode != 0o644 {
		t.Error(st, err)
	}
	if _, err := c.ContainerStatPath(ctx, id, moby.ContainerStatPathOptions{Path: "/nothing"}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := c.CopyToContainer(ctx, id, moby.CopyToContainerOptions{DestinationPath: "/tmp", Content: bytes.NewReader(tarOf("f", "data"))}); err != nil || string(f.files["/tmp/f"]) != "data" {
		t.Error(f.files, err)
	}
	from, err := c.CopyFromContainer(ctx, id, moby.CopyFromContainerOptions{SourcePath: "/etc/motd"})
	if err != nil || from.Stat.Size != 2 {
		t.Error(from.Stat, err)
	}
	from.Content.Close()
	if res, err := c.ContainerCommit(ctx, id, moby.ContainerCommitOptions{Reference: "a:b", Changes: []string{"CMD x", "ENV a=b"}, NoPause: true, Config: &container.Config{User: "u"}}); err != nil || res.ID != "sha256:c0ffee" {
		t.Error(res, err)
	}
	if got := f.last.(model.CommitRequest); got.Pause || len(got.Changes) != 2 || !strings.HasSuffix(got.Repo, "a") || got.Tag != "b" || got.Config.Process.User != "u" {
		t.Errorf("%+v", got)
	}
	if _, err := c.ImageInspect(ctx, "a.example/b/c"); err != nil {
		t.Error(err)
	}
	if h, err := c.ImageHistory(ctx, "whoami"); err != nil || len(h.Items) != 1 {
		t.Error(h, err)
	}
	load, err := c.ImageLoad(ctx, bytes.NewReader(tarOf("damaged", "x")))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(load)
	if !strings.Contains(string(text), `"errorDetail":{"code":500,"message":"layer abc is damaged"}`) {
		t.Errorf("%s", text)
	}
	if _, err := c.ImageLoad(ctx, strings.NewReader("short")); !errdefs.IsInvalidArgument(err) {
		t.Error("an early failure must be an ordinary answer:", err)
	}
	export, err := c.ContainerExport(ctx, "breaks", moby.ContainerExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, bufio.NewReader(export)); err == nil {
		t.Error("a truncated archive must not look whole")
	}
}

func TestNetworksVolumesSystem(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f)
	ctx := context.Background()
	if n, err := c.NetworkInspect(ctx, "own", moby.NetworkInspectOptions{}); err != nil || len(n.Network.Containers) != 1 || n.Network.Status == nil {
		t.Error(n, err)
	}
	if _, err := c.NetworkCreate(ctx, "n", moby.NetworkCreateOptions{Driver: "bridge", IPAM: &network.IPAM{Config: []network.IPAMConfig{{}}}}); err != nil {
		t.Error(err)
	}
	if s := f.last.(model.NetworkSpec); !s.IPv4 || s.Name != "n" {
		t.Errorf("%+v", s)
	}
	if res, err := c.VolumePrune(ctx, moby.VolumePruneOptions{All: true}); err != nil || res.Report.SpaceReclaimed != 100 || len(f.last.(model.Filters)["all"]) != 1 {
		t.Error(res, f.last, err)
	}
	if _, err := c.VolumeRemove(ctx, "x", moby.VolumeRemoveOptions{}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := c.VolumeRemove(ctx, "x", moby.VolumeRemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if info, err := c.Info(ctx, moby.InfoOptions{}); err != nil || info.Info.Containers != 6 || info.Info.OSType != "linux" {
		t.Error(info, err)
	}
	if df, err := c.DiskUsage(ctx, moby.DiskUsageOptions{Verbose: true, Images: true, Containers: true, Volumes: true}); err != nil || df.Images.TotalSize != 1000 || df.Volumes.Reclaimable != 100 || len(df.Images.Items) != 1 {
		t.Errorf("%+v %v", df, err)
	}
	if p, err := c.Ping(ctx, moby.PingOptions{}); err != nil || p.APIVersion != "1.56" || p.OSType != "linux" {
		t.Error(p, err)
	}
}
