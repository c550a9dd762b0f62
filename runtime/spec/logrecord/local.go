package logrecord

import (
	"encoding/binary"
	"errors"
)

// Sizes of a local record.
const (
	HeaderSize  = 16
	TrailerSize = 4
	// MaxRecord bounds a record; a greater size in a file is damage.
	MaxRecord = 4 << 20
)

const (
	flagStderr  = 1
	flagPartial = 2
)

// ErrDamaged is what a header gives that is none.
var ErrDamaged = errors.New("the log file is damaged here: no record begins where one should")

// Header is the head of a local record.
type Header struct {
	Size    int // of the whole record
	Stderr  bool
	Partial bool
	Time    int64 // unix nanoseconds
}

// DataSize is the number of bytes of output in the record.
func (h Header) DataSize() int { return h.Size - HeaderSize - TrailerSize }

// PutHeader fills the head and the tail of a record with n bytes of output.
func PutHeader(head *[HeaderSize]byte, tail *[TrailerSize]byte, n int, stderr, partial bool, nanos int64) {
	size := uint32(HeaderSize + n + TrailerSize)
	binary.LittleEndian.PutUint32(head[0:], size)
	head[4] = 0
	if stderr {
		head[4] |= flagStderr
	}
	if partial {
		head[4] |= flagPartial
	}
	copy(head[5:], "SL1")
	binary.LittleEndian.PutUint64(head[8:], uint64(nanos))
	binary.LittleEndian.PutUint32(tail[:], size)
}

// ParseHeader reads the head of a record.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize || string(b[5:8]) != "SL1" || b[4]&^(flagStderr|flagPartial) != 0 {
		return Header{}, ErrDamaged
	}
	h := Header{Size: int(binary.LittleEndian.Uint32(b)), Stderr: b[4]&flagStderr != 0, Partial: b[4]&flagPartial != 0,
		Time: int64(binary.LittleEndian.Uint64(b[8:]))}
	if h.Size < HeaderSize+TrailerSize || h.Size > MaxRecord {
		return Header{}, ErrDamaged
	}
	return h, nil
}

// ParseTrailer reads the size of the record that ends with b.
func ParseTrailer(b []byte) (size int, err error) {
	if len(b) != TrailerSize {
		return 0, ErrDamaged
	}
	size = int(binary.LittleEndian.Uint32(b))
	if size < HeaderSize+TrailerSize || size > MaxRecord {
		return 0, ErrDamaged
	}
	return size, nil
}
