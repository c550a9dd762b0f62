package logrecord

import "fmt"

// Identity tells one log file from every other, also once it is compressed and its inode serves another file: a file
// that is not written any more keeps its size and its time. The gzip header's comment of a compressed log holds it.
type Identity struct {
	Inode uint64
	Size  int64 // bytes
	Mtime int64 // nanoseconds since 1970
}

const identityFormat = "inode %d size %d mtime %d"

// String is the text for the comment.
func (i Identity) String() string { return fmt.Sprintf(identityFormat, i.Inode, i.Size, i.Mtime) }

// ParseIdentity reads the comment; ok is false when it holds no identity.
func ParseIdentity(comment string) (i Identity, ok bool) {
	n, err := fmt.Sscanf(comment, identityFormat, &i.Inode, &i.Size, &i.Mtime)
	return i, err == nil && n == 3
}
