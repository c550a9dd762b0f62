package client

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// dialStdio runs on the far side of an ssh:// host, whatever shell is there, with flags after it: a verb that joins its standard
// streams to the engine's socket. Docker's command line has it wherever Docker is installed, Shoal's where Shoal is.
const dialStdio = `sh -c 'p=$(command -v shoal) || p=docker; exec "$p" "$@" system dial-stdio' sh`

// sshDialer connects by the system's ssh, so that the user's keys, agent and configuration count.
func sshDialer(host string) (func(context.Context, string, string) (net.Conn, error), error) {
	u, err := url.Parse(host)
	if err != nil || u.Hostname() == "" {
		return nil, errs.New(errs.Invalid, "host %q: want ssh://[user@]host[:port]", host)
	}
	if _, set := u.User.Password(); set {
		return nil, errs.New(errs.Invalid, "host ssh://%s: a password in the address would be seen by every user of this machine; use a key or an agent", u.Host)
	}
	if strings.HasPrefix(u.Hostname(), "-") || strings.HasPrefix(u.User.Username(), "-") {
		return nil, errs.New(errs.Invalid, "host %q: neither user nor host may start with a dash", host)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, errs.New(errs.Invalid, "host %q: an ssh host has no query or fragment", host)
	}
	args := []string{"-o", "ConnectTimeout=30", "-T"}
	if user := u.User.Username(); user != "" {
		args = append(args, "-l", user)
	}
	if port := u.Port(); port != "" {
		args = append(args, "-p", port)
	}
	remote := dialStdio
	if path := strings.TrimRight(u.Path, "/"); path != "" {
		if strings.ContainsFunc(path, shellReads) {
			return nil, errs.New(errs.Invalid, "host %q: the path of the socket over there has characters that a shell reads; want letters, digits and any of / . _ - + : @", host)
		}
		remote += " --host unix://" + path
	}
	args = append(args, "--", u.Hostname(), remote)
	return func(context.Context, string, string) (net.Conn, error) { return startPipe("ssh", args) }, nil
}

// shellReads says whether a character may mean something to the shell over there.
func shellReads(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@", r))
}

// pipeConn is a program's standard streams as a connection.
type pipeConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *tailBuffer
	once   sync.Once
}

func startPipe(name string, args []string) (net.Conn, error) {
	c := &pipeConn{cmd: exec.Command(name, args...), stderr: &tailBuffer{}}
	c.cmd.Stderr = c.stderr
	c.cmd.Env = os.Environ()
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, errs.New(errs.Unavailable, "start %s to reach the engine: %w", name, err)
	}
	return c, nil
}

func (c *pipeConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if err == io.EOF && n == 0 {
		if said := c.stderr.String(); said != "" {
			return 0, errs.New(errs.Unavailable, "%s ended: %s", strings.Join(c.cmd.Args, " "), said)
		}
	}
	return n, err
}

func (c *pipeConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// CloseWrite ends the input; output can still be read.
func (c *pipeConn) CloseWrite() error { return c.in.Close() }

func (c *pipeConn) Close() error {
	c.once.Do(func() {
		c.in.Close()
		c.out.Close()
		if c.cmd.Process != nil {
			c.cmd.Process.Kill()
			go c.cmd.Wait()
		}
	})
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr              { return pipeAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr             { return pipeAddr{} }
func (c *pipeConn) SetDeadline(time.Time) error      { return nil }
func (c *pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (c *pipeConn) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "ssh" }

// tailBuffer keeps the last kilobytes written to it.
type tailBuffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	if over := len(b.data) - 4096; over > 0 {
		b.data = b.data[over:]
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(string(b.data))
}
