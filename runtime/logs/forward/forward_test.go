package forward

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

func target(driver string, opts ...string) spec.LogTarget {
	t := spec.LogTarget{Driver: driver, Options: map[string]string{}, Info: spec.LogInfo{ContainerID: strings.Repeat("ab", 32), ContainerName: "/web",
		ImageName: "img", Labels: map[string]string{"l": "v"}}}
	for i := 0; i < len(opts); i += 2 {
		t.Options[opts[i]] = opts[i+1]
	}
	return t
}

var when = time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.Local)

func records(list ...string) io.Reader {
	var b bytes.Buffer
	for _, s := range list {
		stderr := strings.HasPrefix(s, "!")
		s = strings.TrimPrefix(s, "!")
		var head [logrecord.HeaderSize]byte
		var tail [logrecord.TrailerSize]byte
		logrecord.PutHeader(&head, &tail, len(s), stderr, !strings.HasSuffix(s, "\n"), when.UnixNano())
		b.Write(head[:])
		b.WriteString(s)
		b.Write(tail[:])
	}
	return &b
}

func forwardAll(t *testing.T, target spec.LogTarget, in io.Reader) string {
	t.Helper()
	var out bytes.Buffer
	if err := Forward(target, in, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func packets(t *testing.T, c net.PacketConn, n int) [][]byte {
	t.Helper()
	var list [][]byte
	for range n {
		b := make([]byte, 65536)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b[:k])
	}
	return list
}

func TestSyslogFormats(t *testing.T) {
	for format, want := range map[string]string{
		"":             "<30>Jan  2 03:04:05 web[",
		"rfc3164":      "<30>Jan  2 03:04:05 ",
		"rfc5424":      "<30>1 2026-01-02T03:04:05",
		"rfc5424micro": "<30>1 2026-01-02T03:04:05.678000",
	} {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		said := forwardAll(t, target("syslog", "syslog-address", "udp://"+c.LocalAddr().String(), "syslog-format", format, "tag", "{{.Name}}"), records("one\ntwo\n", "!bad\n"))
		got := packets(t, c, 3)
		if said != "ok\n" || !strings.HasPrefix(string(got[0]), want) || !strings.HasSuffix(string(got[0]), "one\n") || !bytes.HasPrefix(got[2], []byte("<27>")) {
			t.Errorf("%s: %q %q", format, said, got)
		}
		c.Close()
	}
}

func TestSyslogUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	forwardAll(t, target("syslog", "syslog-address", "unix://"+path, "syslog-facility", "local0"), records("x\n"))
	if got := packets(t, c, 1); !bytes.HasPrefix(got[0], []byte("<134>")) {
		t.Fatalf("%q", got)
	}
}

func TestGELF(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	forwardAll(t, target("gelf", "gelf-address", "udp://"+c.LocalAddr().String()), records("hello\n"))
	z, err := gzip.NewReader(bytes.NewReader(packets(t, c, 1)[0]))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.NewDecoder(z).Decode(&m); err != nil || m["short_message"] != "hello" || m["_container_name"] != "web" || m["_l"] != "v" || m["level"] != 6.0 || m["version"] != "1.1" {
		t.Fatal(m, err)
	}
	long := strings.Repeat("0123456789", 500)
	forwardAll(t, target("gelf", "gelf-address", "udp://"+c.LocalAddr().String(), "gelf-compression-type", "none"), records(long+"\n"))
	var whole []byte
	first := packets(t, c, 1)[0]
	whole = append(whole, first[12:]...)
	for _, p := range packets(t, c, int(first[11])-1) {
		whole = append(whole, p[12:]...)
	}
	if err := json.Unmarshal(whole, &m); err != nil || m["short_message"] != long {
		t.Fatal(err)
	}
}

func listen(t *testing.T) (net.Listener, chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	return l, conns
}

func TestGELFByTCP(t *testing.T) {
	l, conns := listen(t)
	forwardAll(t, target("gelf", "gelf-address", "tcp://"+l.Addr().String()), records("a\n", "b\n"))
	r := bufio.NewReader(<-conns)
	for _, want := range []string{"a", "b"} {
		data, err := r.ReadBytes(0)
		var m map[string]any
		if err != nil || json.Unmarshal(data[:len(data)-1], &m) != nil || m["short_message"] != want {
			t.Fatal(m, err)
		}
	}
}

func TestFluentd(t *testing.T) {
	l, conns := listen(t)
	go func() {
		c := <-conns
		b := make([]byte, 65536)
		n, _ := c.Read(b)
		i := bytes.Index(b[:n], []byte("chunk"))
		c.Write(append([]byte{0x81, 0xa3, 'a', 'c', 'k'}, b[i+5:n]...)) // the chunk's string, as it came
		conns <- c
	}()
	said := forwardAll(t, target("fluentd", "fluentd-address", l.Addr().String(), "fluentd-request-ack", "true", "fluentd-sub-second-precision", "true"), records("line\n"))
	if said != "ok\n" {
		t.Fatal(said)
	}
}

func TestFluentdMessage(t *testing.T) {
	l, conns := listen(t)
	forwardAll(t, target("fluentd", "fluentd-address", l.Addr().String(), "tag", "t"), records("!line\n"))
	data, err := io.ReadAll(<-conns)
	want := append([]byte{0x93, 0xa1, 't', 0xd3}, data[4:12]...)
	want = packMap(want, map[string]string{"container_id": strings.Repeat("ab", 32), "container_name": "/web", "l": "v", "log": "line", "source": "stderr"})
	if err != nil || !bytes.Equal(data, want) {
		t.Fatalf("%q, want %q", data, want)
	}
}

func TestRefusedConnectionIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = Forward(target("syslog", "syslog-address", "tcp://"+l.Addr().String()), records("x\n"), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "connect to the log server tcp://"+l.Addr().String()) {
		t.Fatal(err)
	}
	err = Forward(target("syslog", "syslog-address", "tcp+tls://"+l.Addr().String()), records("x\n"), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Fatal(err)
	}
}

func TestServerThatComesBack(t *testing.T) {
	l, conns := listen(t)
	in, feed := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Forward(target("syslog", "syslog-address", "tcp://"+l.Addr().String()), in, io.Discard)
	}()
	first := <-conns
	io.Copy(feed, records("one\n"))
	r := bufio.NewReader(first)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasSuffix(line, "one\n") {
		t.Fatal(line, err)
	}
	first.(*net.TCPConn).SetLinger(0)
	first.Close()
	got := make(chan string)
	go func() {
		line, _ := bufio.NewReader(<-conns).ReadString('\n')
		got <- line
	}()
	for i := 0; ; i++ {
		io.Copy(feed, records("again\n"))
		select {
		case line := <-got:
			if !strings.HasSuffix(line, "again\n") {
				t.Fatal(line)
			}
			feed.Close()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// What a receiver needs to put a long line together; ordinals and the form of the values are Docker's.
func TestPiecesOfALongLine(t *testing.T) {
	l, conns := listen(t)
	long := strings.Repeat("x", 20000)
	forwardAll(t, target("fluentd", "fluentd-address", l.Addr().String(), "tag", "t"), records(long[:16384], "!other\n", long[16384:]+"\n", "short\n"))
	data, err := io.ReadAll(<-conns)
	if err != nil {
		t.Fatal(err)
	}
	var id string
	for i, want := range []map[string]string{
		{"partial_last": "false", "partial_message": "true", "partial_ordinal": "1"}, {"log": "other"},
		{"partial_last": "true", "partial_message": "true", "partial_ordinal": "2"}, {"log": "short"},
	} {
		var m map[string]string
		m, data = unpackMessage(t, data)
		if i == 0 {
			id = m["partial_id"]
		}
		for k, v := range want {
			if m[k] != v {
				t.Errorf("message %d has %s=%q instead of %q", i, k, m[k], v)
			}
		}
		if whole := want["partial_message"] == ""; whole != (m["partial_id"] == "") || !whole && m["partial_id"] != id {
			t.Errorf("message %d belongs to %q, the first to %q", i, m["partial_id"], id)
		}
	}
}

// unpackMessage reads [tag, seconds, map of strings], which is all that is sent.
func unpackMessage(t *testing.T, b []byte) (m map[string]string, rest []byte) {
	t.Helper()
	text := func() string {
		n, head := int(b[0]&31), 1
		switch b[0] {
		case 0xd9:
			n, head = int(b[1]), 2
		case 0xda:
			n, head = int(b[1])<<8|int(b[2]), 3
		}
		s := string(b[head : head+n])
		b = b[head+n:]
		return s
	}
	b = b[1:]
	text()
	n := int(b[9] & 15)
	b = b[10:]
	m = map[string]string{}
	for range n {
		k := text()
		m[k] = text()
	}
	return m, b
}

// UDP asks nobody: without a receiver nothing waits. What no datagram holds must not stop what follows.
func TestDatagramsThatCannotArrive(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := "udp://" + c.LocalAddr().String()
	huge := target("gelf", "gelf-address", addr, "gelf-compression-type", "none")
	huge.Info.Labels["huge"] = strings.Repeat("x", 200000)
	if said := forwardAll(t, huge, records("a\n", "b\n")); strings.Count(said, "was dropped") != 2 {
		t.Errorf("of two messages that are too long was said %q", said)
	}
	forwardAll(t, target("gelf", "gelf-address", addr, "gelf-compression-type", "none"), records("\n", "c\n"))
	if got := packets(t, c, 1)[0]; !bytes.Contains(got, []byte(`"short_message":"c"`)) {
		t.Errorf("an empty line was sent: %s", got)
	}
	c.Close()
	began := time.Now()
	for _, driver := range []string{"gelf", "syslog"} {
		if said := forwardAll(t, target(driver, driver+"-address", addr), records("a\n", "b\n", "c\n")); said != "ok\n" {
			t.Errorf("%s: %q", driver, said)
		}
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	c, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info := target("journald").Info
	info.Labels = map[string]string{"com.example-x": "a\nb", "_": "no name"}
	j := newJournal(&info, "tag")
	j.address = path
	if err := j.connect(); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	long := strings.Repeat("x", 16384)
	for _, e := range []*entry{{at: when, line: []byte("out")}, {at: when, stderr: true, line: []byte(long), partial: true, piece: &piece{id: "p", ordinal: 1}}} {
		if err := j.send(e); err != nil {
			t.Fatal(err)
		}
	}
	got := packets(t, c, 2)
	for i, words := range [][]string{
		{"PRIORITY=6\n", "MESSAGE=out\n", "CONTAINER_NAME=web\n", "CONTAINER_ID=abababababab\n", "CONTAINER_TAG=tag\n", "IMAGE_NAME=img\n", "COM_EXAMPLE_X\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n"},
		{"PRIORITY=3\n", "MESSAGE=" + long + "\n", "CONTAINER_PARTIAL_MESSAGE=true\n", "CONTAINER_PARTIAL_ID=p\n", "CONTAINER_PARTIAL_ORDINAL=1\n", "CONTAINER_PARTIAL_LAST=false\n"},
	} {
		for _, w := range words {
			if !bytes.Contains(got[i], []byte(w)) {
				t.Errorf("datagram %d lacks %.60q: %.300q", i, w, got[i])
			}
		}
	}
	if bytes.Contains(got[0], []byte("no name")) || bytes.Contains(got[0], []byte("PARTIAL")) {
		t.Errorf("%q", got[0])
	}
}
