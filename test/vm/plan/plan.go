// Package plan is what the virtual machine's two sides tell each other: the host what to do, the guest what came of it.
// It must not know how either side works.
package plan

// Plan is the whole work of one boot. It lies as plan.json in the initial file system.
type Plan struct {
	Modules []string // file names in the initial file system, in the order of loading
	Root    string   // block device of the root file system, ext4
	Init    string   // a program of the root file system that takes over as init; then the rest is not looked at
	Disks   []Disk
	Steps   []Step
}

// Disk is one more file system.
type Disk struct{ Device, Type, Options, At string }

// Step is one program. Its output is told line by line.
type Step struct {
	Name    string
	Dir     string
	Args    []string // the first is the program's path
	Env     []string
	Seconds int // after which it is ended and has failed
}

// Event is one line from the guest.
type Event struct {
	Step    string  `json:",omitempty"`
	Line    string  `json:",omitempty"`
	Exit    *int    `json:",omitempty"` // the step ended; -1: by a signal
	Seconds float64 `json:",omitempty"`
	Fail    string  `json:",omitempty"` // the guest itself could not go on
}
