package ports

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoalhq/shoal/model"
)

// owner finds the process that has a port, as far as /proc shows it. It is slow and only for a message.
func owner(key Key) (name string, pid int) {
	files := []string{"tcp", "tcp6"}
	switch key.Proto {
	case model.UDP:
		files = []string{"udp", "udp6"}
	case model.SCTP:
		return "", 0
	}
	inodes := map[string]bool{}
	for _, f := range files {
		socketInodes("/proc/net/"+f, key, inodes)
	}
	if len(inodes) == 0 {
		return "", 0
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode, ok := strings.CutPrefix(link, "socket:[")
		if !ok || !inodes[strings.TrimSuffix(inode, "]")] {
			continue
		}
		p := strings.Split(fd, "/")[2]
		pid, _ = strconv.Atoi(p)
		comm, _ := os.ReadFile("/proc/" + p + "/comm")
		return strings.TrimSpace(string(comm)), pid
	}
	return "", 0
}

// socketInodes collects the sockets of a /proc/net table that are bound to the key's port and listen, if the protocol
// knows that.
func socketInodes(file string, key Key, into map[string]bool) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	want := fmt.Sprintf(":%04X", key.Addr.Port())
	const listening = "0A"
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		if len(w) > 9 && strings.HasSuffix(w[1], want) && (key.Proto == model.UDP || w[3] == listening) {
			into[w[9]] = true
		}
	}
}
