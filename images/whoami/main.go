// Command whoami is the program of the built-in image "whoami": an HTTP server that tells who answered whom, and that
// can be told to misbehave (fail its health check, be slow, burn CPU, hold memory, exit, log a lot) so that engines and
// clusters can be tried out. It must stay small and depend on nothing but the standard library.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `whoami answers HTTP requests with what it knows of itself and of the request.

Flags and their environment variables:
`

func main() {
	port := flag.String("port", env("WHOAMI_PORT", "80"), "port to listen on (WHOAMI_PORT)")
	name := flag.String("name", env("WHOAMI_NAME", ""), "a name to answer with (WHOAMI_NAME)")
	sick := flag.Bool("unhealthy", env("WHOAMI_UNHEALTHY", "") != "", "start with a failing health check (WHOAMI_UNHEALTHY)")
	delay := flag.Duration("start-delay", duration("WHOAMI_START_DELAY"), "wait before listening (WHOAMI_START_DELAY)")
	grace := flag.Duration("stop-delay", duration("WHOAMI_STOP_DELAY"), "keep answering after SIGTERM (WHOAMI_STOP_DELAY)")
	check := flag.Bool("check", false, "be the health check: ask the server on the port, exit 0 when it is well, else 1")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
		fmt.Fprint(flag.CommandLine.Output(), "\n"+paths)
	}
	flag.Parse()
	if *check {
		os.Exit(probe(*port))
	}
	if err := serve(*port, newServer(*name, !*sick), *delay, *grace); err != nil {
		fmt.Fprintln(os.Stderr, "whoami:", err)
		os.Exit(1)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func duration(name string) time.Duration {
	d, _ := time.ParseDuration(os.Getenv(name))
	return d
}

// probe is the health check.
func probe(port string) int {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://127.0.0.1:" + port + "/health")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
	if answer.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

// serve listens until SIGTERM or SIGINT, then finishes what was begun.
func serve(port string, s *server, delay, grace time.Duration) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	select {
	case <-stop.Done():
		return nil
	case <-time.After(delay):
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("whoami listens on", l.Addr())
	h := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	fmt.Println("whoami was asked to stop")
	time.Sleep(grace)
	end, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	if err := h.Shutdown(end); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
