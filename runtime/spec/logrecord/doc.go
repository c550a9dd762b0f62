// Package logrecord knows the two formats in which a container's output lies on disk: Docker's json-file, one JSON
// object per line, and Shoal's own for the driver local. The supervisor writes and the daemon reads; both use this
// package. It must not open files or tell the time.
//
// # The format of the driver local
//
// A file is a sequence of records, nothing before or between them:
//
//	4 bytes  size of the whole record, little endian
//	1 byte   flags: 1 standard error, 2 the last line is not finished and goes on in the stream's next record
//	3 bytes  "SL1"
//	8 bytes  time of the record, nanoseconds since 1970, little endian
//	n bytes  output as it was printed: one or more whole lines, each with its newline (the last without it with flag 2, and
//	         where the stream ended so)
//	4 bytes  size again, so that a reader can walk from the end
//
// One record holds what one read of the container's pipe gave, so a line costs no work of its own when it is written.
package logrecord

import "bytes"

// Split is the longest piece of a line that is one entry; longer lines are cut into several of which all but the last
// are partial, as Docker does.
const Split = 16 << 10

// Pieces calls f for every line of data, which are whole lines except that the last may lack its newline: when partial, or
// when the stream ended there.
// Lines longer than Split come in pieces, cut between UTF-8 characters.
func Pieces(data []byte, partial bool, f func(piece []byte, partial bool) error) error {
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n') + 1
		part := false
		if n == 0 {
			n, part = len(data), partial
		}
		if n > Split+1 {
			n, part = Cut(data), true
		}
		if err := f(data[:n], part); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// Cut is where to cut a line that is longer than Split: at most Split, not inside a UTF-8 character.
func Cut(line []byte) int {
	for n := Split; n > Split-4; n-- {
		if line[n]&0xC0 != 0x80 {
			return n
		}
	}
	return Split
}
