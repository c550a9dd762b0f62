//go:build kernel

package e2e

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// logServer receives what containers log, beside the daemon.
type logServer struct {
	addr string
	got  chan struct{} // one for every read

	mu    sync.Mutex
	text  bytes.Buffer
	close func()
}

// serveLogs listens in the daemon's network namespace. reply answers what is read, nil never.
func serveLogs(t *testing.T, w *world.World, network, addr string, reply func([]byte) []byte) *logServer {
	t.Helper()
	s := &logServer{got: make(chan struct{}, 1000)}
	take := func(b []byte) {
		if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, _ = io.ReadAll(z)
		}
		s.mu.Lock()
		s.text.Write(b)
		s.mu.Unlock()
		select {
		case s.got <- struct{}{}:
		default:
		}
	}
	var err error
	w.InNet(func() {
		if network == "udp" || network == "unixgram" {
			var c net.PacketConn
			if c, err = net.ListenPacket(network, addr); err != nil {
				return
			}
			s.addr, s.close = c.LocalAddr().String(), func() { c.Close() }
			go func() {
				b := make([]byte, 65536)
				for {
					n, _, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					take(b[:n])
				}
			}()
			return
		}
		var l net.Listener
		if l, err = net.Listen(network, addr); err != nil {
			return
		}
		s.addr = l.Addr().String()
		var conns []net.Conn
		s.close = func() {
			l.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, c := range conns {
				c.Close()
			}
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				s.mu.Lock()
				conns = append(conns, c)
				s.mu.Unlock()
				go func() {
					b := make([]byte, 65536)
					for {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						take(b[:n])
						if reply != nil {
							c.Write(reply(b[:n]))
						}
					}
				}()
			}
		}()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// await waits until the server was sent all of the words.
func (s *logServer) await(t *testing.T, words ...string) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		s.mu.Lock()
		text, missing := s.text.String(), ""
		s.mu.Unlock()
		for _, word := range words {
			if !strings.Contains(text, word) {
				missing = word
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-s.got:
		case <-limit:
			t.Fatalf("%q was not sent; this was: %.2000q", missing, text)
		}
	}
}

// Each driver that speaks with a server, with a real one; docker logs shows the copy.
func TestLogServers(t *testing.T) {
	w := world.New(t)
	acks := func(b []byte) []byte { // the map {"ack": ...} with the value of the last "chunk"
		_, id, _ := bytes.Cut(b, []byte("\xa5chunk"))
		return append([]byte("\x81\xa3ack"), id...)
	}
	for name, c := range map[string]struct {
		network, addr string
		reply         func([]byte) []byte
		opts          []string // ADDR is the server's
		words         []string
	}{
		"syslog udp":    {"udp", "127.0.0.1:0", nil, []string{"syslog", "syslog-address=udp://ADDR", "tag={{.Name}}/x"}, []string{"<30>", "<27>", "/x[", ": out\n", ": err\n", ": open\n"}},
		"syslog tcp":    {"tcp", "127.0.0.1:0", nil, []string{"syslog", "syslog-address=tcp://ADDR", "syslog-facility=local1", "syslog-format=rfc5424"}, []string{"<142>1 20", "<139>1 20", " - out\n", " - open\n"}},
		"syslog socket": {"unixgram", w.Dir + "/log.sock", nil, []string{"syslog", "syslog-address=unixgram://ADDR", "syslog-format=rfc3164"}, []string{"<30>", ": out\n", ": open\n"}},
		"syslog stream": {"unix", w.Dir + "/logs.sock", nil, []string{"syslog", "syslog-address=unix://ADDR", "syslog-format=rfc5424micro"}, []string{"<30>1 20", " - out\n", " - open\n"}},
		"gelf udp":      {"udp", "127.0.0.1:0", nil, []string{"gelf", "gelf-address=udp://ADDR", "env=ROLE"}, []string{`"short_message":"out"`, `"level":3`, `"_ROLE":"db"`, `"short_message":"open"`}},
		"gelf tcp":      {"tcp", "127.0.0.1:0", nil, []string{"gelf", "gelf-address=tcp://ADDR", "labels=team"}, []string{`"short_message":"out"`, `"_team":"red"`, `"short_message":"open"`}},
		"fluentd tcp":   {"tcp", "127.0.0.1:0", nil, []string{"fluentd", "fluentd-address=ADDR", "labels=team", "tag=t.{{.Name}}"}, []string{"\xa3log\xa3out", "\xa4team\xa3red", "\xa6stderr", "\xa3log\xa4open"}},
		"fluentd acked": {"unix", w.Dir + "/fluent.sock", acks, []string{"fluentd", "fluentd-address=unix://ADDR", "fluentd-request-ack=true", "fluentd-sub-second-precision=true"}, []string{"\xa3log\xa3out", "\xa5chunk", "\xa3log\xa4open"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveLogs(t, w, c.network, c.addr, c.reply)
			box := strings.ReplaceAll(name, " ", "-")
			args := []string{"run", "--name", box, "--network", "none", "--label", "team=red", "-e", "ROLE=db", "--log-driver", c.opts[0]}
			for _, o := range c.opts[1:] {
				args = append(args, "--log-opt", strings.ReplaceAll(o, "ADDR", s.addr))
			}
			w.Must(w.Docker(append(args, "toolbox", "sh", "-c", "echo out; echo err >&2; printf open")...))
			s.await(t, c.words...)
			r := w.Docker("logs", box)
			want(t, "the copy", r.Out+"|"+r.Err, "out\nopen|err\n")
		})
	}
	s := serveLogs(t, w, "udp", "127.0.0.1:0", nil)
	w.Must(w.Docker("run", "--name", "uncached", "--log-driver", "gelf", "--log-opt", "gelf-address=udp://"+s.addr, "--log-opt", "cache-disabled=true", "toolbox", "echo", "x"))
	if r := w.Docker("logs", "uncached"); r.Code != 1 || !strings.Contains(r.Err, "cache-disabled") {
		t.Errorf("logs without a copy: %d %s%s", r.Code, r.Out, r.Err)
	}
}

// A server that cannot be reached is told at the start; one that goes away or hangs does not keep its containers.
func TestLogServersInTrouble(t *testing.T) {
	w := world.New(t)
	gone := filepath.Join(w.Dir, "gone.sock")
	for _, flags := range []string{"syslog --log-opt syslog-address=tcp://127.0.0.1:9", "gelf --log-opt gelf-address=tcp://127.0.0.1:9",
		"fluentd --log-opt fluentd-address=127.0.0.1:9", "fluentd --log-opt fluentd-address=unix://" + gone, "journald"} {
		r := w.Docker(append(append([]string{"run", "--rm", "--log-driver"}, strings.Fields(flags)...), "toolbox", "true")...)
		if r.Code != 125 && r.Code != 127 || !strings.Contains(r.Err, "log") {
			t.Errorf("%s: %d %s", flags, r.Code, r.Err)
		}
	}
	w.Must(w.Docker("run", "--rm", "--log-driver", "fluentd", "--log-opt", "fluentd-address=unix://"+gone, "--log-opt", "fluentd-async=true", "toolbox", "true"))

	// 30 MB of output: more than the sockets' buffers, the forwarder's queue and the pipes hold together.
	flood := []string{"toolbox", "sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end"}
	var both sync.WaitGroup
	for _, mode := range []string{"blocking", "non-blocking"} {
		hung := serveLogs(t, w, "unix", filepath.Join(w.Dir, mode+".sock"), nil) // acknowledges nothing
		both.Go(func() {
			// It ends, within the two minutes that a program has here.
			r := w.Docker(append([]string{"run", "--name", mode, "--network", "none", "--log-driver", "fluentd", "--log-opt", "mode=" + mode,
				"--log-opt", "fluentd-request-ack=true", "--log-opt", "fluentd-write-timeout=1s", "--log-opt", "fluentd-address=unix://" + hung.addr}, flood...)...)
			if r.Code != 0 {
				t.Errorf("%s: a server that hangs held the container up: exit code %d: %s", mode, r.Code, r.Err)
			}
		})
	}
	both.Wait()
	for _, mode := range []string{"blocking", "non-blocking"} {
		want(t, mode, w.Must(w.Docker("logs", "--tail", "1", mode)), "end")
	}

	path := filepath.Join(w.Dir, "back.sock")
	first := serveLogs(t, w, "unix", path, nil)
	w.Must(w.Docker("run", "-d", "--name", "back", "--network", "none", "--log-driver", "syslog", "--log-opt", "syslog-address=unix://"+path,
		"toolbox", "sh", "-c", "mkfifo /in; echo before; while true; do read line </in && echo $line; done"))
	first.await(t, "before")
	first.close()
	say := func(word string) { w.Must(w.Docker("exec", "back", "sh", "-c", "echo "+word+" >/in")) }
	say("lost")
	second := serveLogs(t, w, "unix", path, nil)
	say("after")
	second.await(t, "after")
}
