package access

import (
	"fmt"
	"path"
	"strings"
)

// Secret is a path of the host that makes whoever can use it master of the engine.
type Secret struct {
	Path string // clean, without symbolic links
	What string // "the engine's socket"
	Tree bool   // a directory: all below it counts as well
}

// Exposed says what a mount of source, clean and without symbolic links, would show of the secrets. except are directories
// that may be mounted although they are below one.
func Exposed(source string, secrets []Secret, except string) (said []string) {
	if except != "" && source != except && below(source, except) {
		return nil
	}
	for _, s := range secrets {
		if below(s.Path, source) || s.Tree && below(source, s.Path) {
			said = append(said, fmt.Sprintf("%s (%s)", s.What, s.Path))
		}
	}
	return said
}

// below says whether p is dir or in it.
func below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// BindSource gives what a bind in the form "source:target[:options]" mounts: a path, or the name of a volume.
func BindSource(bind string) string {
	source, _, _ := strings.Cut(bind, ":")
	if strings.HasPrefix(source, "/") {
		return path.Clean(source)
	}
	return source
}
