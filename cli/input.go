package cli

import (
	"io"
	"os"

	"github.com/shoalhq/shoal/lib/errs"
)

// openInput opens the archive of that name, or standard input when there is no name; size is 0 where it is not known. On a
// terminal nobody types an archive: the hint says what to do instead.
func (a *App) openInput(name, hint string) (in io.ReadCloser, size int64, err error) {
	if name == "" {
		if terminalOf(a.In) != nil {
			return nil, 0, errs.New(errs.Invalid, "%s", hint)
		}
		return io.NopCloser(a.In), 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	switch fi, err := f.Stat(); {
	case err != nil:
	case fi.IsDir():
		f.Close()
		return nil, 0, errs.New(errs.Invalid, "%s is a directory, not an archive: name a tar file, or pack it: tar -C %s -c .", name, name)
	case fi.Mode().IsRegular():
		size = fi.Size()
	}
	return f, size, nil
}
