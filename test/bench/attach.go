package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// caller calls an engine's API over one connection that stays, so that what is timed is the engine's work.
func (e *engine) caller() func(path, body string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.socket())
	}}}
	return func(path, body string) error {
		res, err := client.Post("http://engine"+path, "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		if res.StatusCode/100 != 2 {
			return fmt.Errorf("%s %s: %s: %s", e.name, path, res.Status, bytes.TrimSpace(text))
		}
		return nil
	}
}

const attachTarget, detachTarget = "≤ 3 ms", "≤ 2 ms"

// attaches measures connecting the running container bench-x to the network bench-m and disconnecting it, in the engines.
func attaches(r *report, o options, used []*engine, when string) error {
	on, off := make([][]time.Duration, len(used)), make([][]time.Duration, len(used))
	calls := make([]func(string, string) error, len(used))
	for i, e := range used {
		calls[i] = e.caller()
	}
	for range o.runs {
		for i := range used {
			start := time.Now()
			if err := calls[i]("/networks/bench-m/connect", `{"Container":"bench-x"}`); err != nil {
				return err
			}
			connected := time.Now()
			if err := calls[i]("/networks/bench-m/disconnect", `{"Container":"bench-x"}`); err != nil {
				return err
			}
			on[i], off[i] = append(on[i], connected.Sub(start)), append(off[i], time.Since(connected))
		}
	}
	for i, e := range used {
		r.add("attach an endpoint, DNS and rules included (API)"+when, attachTarget, e.name, sorted(on[i]))
	}
	for i, e := range used {
		r.add("detach it (API)"+when, detachTarget, e.name, sorted(off[i]))
	}
	return nil
}

// attachesAmongPorts measures the same once more with 2,000 published ports in place. Docker would start 4,000 processes
// for them, so only ours is asked.
func attachesAmongPorts(r *report, o options, used []*engine) error {
	for _, e := range used {
		if !ours(e.name) {
			continue
		}
		defer e.run("rm", "-f", "bench-ports")
		if _, err := e.run("run", "-d", "--name", "bench-ports", "-p", "20000-21999:20000-21999", image, "/bin/sleep", "3600"); err != nil {
			return err
		}
		return attaches(r, o, []*engine{e}, ", 2,000 published ports in place")
	}
	return nil
}
