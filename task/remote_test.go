package task

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/task/logs"
)

func TestRemoteDriverKeepsALocalCopy(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := manager(t)
	r := request(t, "echo hello; echo bad >&2")
	r.Config.Log.Driver = "syslog"
	r.Config.Log.Options = map[string]string{"syslog-address": "udp://" + c.LocalAddr().String(), "syslog-format": "rfc5424"}
	r.Config.Log.Info.ContainerID = r.Config.ID
	task := start(t, m, r)
	await(t, task.Done())
	if e := task.Exit(); e.Code != 0 || e.LogError != "" {
		t.Fatal(e)
	}
	buf := make([]byte, 1024)
	seen := ""
	for range 2 {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		seen += string(buf[:n])
	}
	if !strings.Contains(seen, "- hello\n") || !strings.Contains(seen, "- bad\n") {
		t.Fatalf("%q", seen)
	}
	var kept string
	err = logs.Read(context.Background(), logs.Source{Driver: "syslog", Path: r.Config.Log.Path}, model.LogOptions{Stdout: true, Stderr: true, Tail: -1},
		func(e model.LogEntry) error { kept += string(e.Data); return nil })
	if err != nil || len(kept) != len("hello\nbad\n") {
		t.Fatalf("%q %v", kept, err)
	}
}

func TestRemoteDriverWithoutServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	m := manager(t)
	r := request(t, "echo hello")
	r.Config.Log.Driver = "syslog"
	r.Config.Log.Options = map[string]string{"syslog-address": "tcp://" + l.Addr().String()}
	_, err = m.Start(context.Background(), r)
	if err == nil || !strings.Contains(err.Error(), "connect to the log server tcp://") || !strings.Contains(err.Error(), "refused") {
		t.Fatal(err)
	}
	r.Config.Log.Options["syslog-address"] = "tcp+tls://127.0.0.1:1"
	var f *StartFailure
	if _, err = m.Start(context.Background(), r); !errs.Is(err, errs.Unsupported) || errors.As(err, &f) {
		t.Fatal(err)
	}
	if err := m.ValidateLog("local", map[string]string{"max-size": "x"}); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
}
