// Package writeback makes the kernel begin to write large files to disk while they are still being made, so that the
// disk works beside the processor and the sync at the end finds little left. It promises nothing: durability is the
// business of whoever syncs afterwards.
package writeback

import (
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat"
)

// Step is how many bytes of a file should have come before the kernel is asked to write them: enough to be worth a call,
// and to be laid out on the disk in one piece.
const Step = 8 << 20

// Worth is the size below which a finished file is left to the sync at the end.
const Worth = 128 << 10

// waiting is how many files may be waiting their turn; more are left to the sync at the end.
const waiting = 64

// Starter starts the writing of files below one directory, in a goroutine of its own, because the call waits while the
// disk's queue is full. It is for one writer; Close must be called.
type Starter struct {
	dir   string
	files chan string
	done  chan struct{}
}

// New makes a Starter. Nothing runs before the first file.
func New(dir string) *Starter { return &Starter{dir: dir} }

// File asks for what has been written of a file until now. Its name is resolved within the directory: symbolic links
// cannot lead out of it.
func (s *Starter) File(name string) {
	if s.files == nil {
		s.files, s.done = make(chan string, waiting), make(chan struct{})
		go s.run()
	}
	select {
	case s.files <- name:
	default:
	}
}

// Close waits until nothing is opened any more.
func (s *Starter) Close() {
	if s.files != nil {
		close(s.files)
		<-s.done
		s.files = nil
	}
}

func (s *Starter) run() {
	defer close(s.done)
	root, err := unix.Open(s.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(root)
	}
	for name := range s.files {
		if err == nil {
			start(root, name)
		}
	}
}

func start(root int, name string) {
	f, err := openat.RegularIn(root, name, unix.O_NOFOLLOW) // an archive may have put a device in its place by now
	if err != nil {
		return
	}
	defer f.Close()
	unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
