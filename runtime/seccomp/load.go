package seccomp

import (
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Load puts the filter on the calling thread (with the TSYNC flag on all threads), for good. Without CAP_SYS_ADMIN in
// the thread's user namespace it needs no_new_privs. The descriptor is the listener when the profile notifies, and
// else -1. Call it on a locked thread, last before exec: the filter holds for the runtime's own calls as well.
func (f *Filter) Load() (listener int, err error) {
	if f == nil || len(f.Program) == 0 {
		return -1, nil
	}
	flags := uintptr(f.Flags)
	if f.Notify {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&f.Program[0])
	prog := unix.SockFprog{Len: uint16(len(f.Program)), Filter: &f.Program[0]}
	r, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	switch {
	case e == 0 && f.Notify:
		return int(r), nil
	case e == 0 && r == 0:
		return -1, nil
	case e == 0:
		return -1, errs.New(errs.Conflict, "load the seccomp filter on all threads: thread %d has another filter already", r)
	}
	return -1, explainLoad(e)
}

func explainLoad(e unix.Errno) error {
	switch {
	case errors.Is(e, unix.EACCES):
		return errs.New(errs.Forbidden, "load the seccomp filter: %w: without CAP_SYS_ADMIN it needs process.noNewPrivileges", e)
	case errors.Is(e, unix.EINVAL):
		return errs.New(errs.Unsupported, "load the seccomp filter: %w: this kernel lacks an action or flag of the profile "+
			"(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs 5.19, SCMP_ACT_NOTIFY 5.0), or seccomp itself", e)
	case errors.Is(e, unix.EBUSY):
		return errs.New(errs.Conflict, "load the seccomp filter: %w: a filter with a listener is there already, and the kernel "+
			"takes only one", e)
	case errors.Is(e, unix.ENOMEM):
		return errs.New(errs.Exhausted, "load the seccomp filter: %w: all filters of a process together may have 32768 instructions", e)
	}
	return errs.Wrap(e, "load the seccomp filter")
}

// MarshalBinary packs the filter, to hand it to the process that loads it: flags, notify, then 8 bytes an instruction.
func (f *Filter) MarshalBinary() ([]byte, error) {
	out := make([]byte, 0, 8+8*len(f.Program))
	out = binary.NativeEndian.AppendUint32(out, f.Flags)
	notify := uint32(0)
	if f.Notify {
		notify = 1
	}
	out = binary.NativeEndian.AppendUint32(out, notify)
	for _, s := range f.Program {
		out = binary.NativeEndian.AppendUint16(out, s.Code)
		out = append(out, s.Jt, s.Jf)
		out = binary.NativeEndian.AppendUint32(out, s.K)
	}
	return out, nil
}

// UnmarshalBinary unpacks it.
func (f *Filter) UnmarshalBinary(b []byte) error {
	if len(b) < 16 || len(b)%8 != 0 || len(b) > 8+8*unix.BPF_MAXINSNS {
		return errs.New(errs.Damaged, "a packed seccomp filter of %d bytes", len(b))
	}
	f.Flags, f.Notify = binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]) == 1
	f.Program = make([]unix.SockFilter, 0, len(b)/8-1)
	for b = b[8:]; len(b) > 0; b = b[8:] {
		f.Program = append(f.Program, unix.SockFilter{Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])})
	}
	return nil
}
