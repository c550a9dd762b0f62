// Command hello is the program of the built-in image "hello": it tells what just happened. It must not need anything but
// standard output.
package main

import "os"

const text = `
Hello from Shoal! This text was printed by a program in a container, so your installation works.

What just happened:
 1. The command line asked the daemon (shoald), over its API socket, to run the image "hello".
 2. The daemon found the image built in, unpacked its one layer, gave the container a writable layer of its own
    and an address on the bridge network, and wrote all of that down.
 3. A small supervisor (shoal-runtime) took over. It is the parent of this program: it keeps its output and its exit
    code, and would do so even if the daemon were killed now.
 4. The runtime made the namespaces, mounted the root filesystem inside them, set limits, capabilities and the seccomp
    filter, and started this program as process 1.
 5. The program wrote this text. It came back through the supervisor to the daemon, and from there to your terminal.

To try next:
    shoal run -it --rm toolbox                     a shell to look around with
    shoal run -d --name web -p 8080:80 whoami      a web server; then: curl http://localhost:8080/
    shoal logs web        shoal stats web          what it says and what it takes
    shoal rm -f web                                and away with it
    shoal --help
The unmodified docker command line works too.

`

func main() {
	if _, err := os.Stdout.WriteString(text[1:]); err != nil {
		os.Exit(1)
	}
}
