package packaging

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/shoalhq/shoal/cli"
	"github.com/shoalhq/shoal/lib/version"
)

// Manual writes a manual page of section 1 for each verb of the command line into dir/man1, and the completion of bash,
// zsh and fish into dir/completion.
func Manual(dir string, at time.Time) error {
	pages := filepath.Join(dir, "man1")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	root := cli.Command()
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Source: "Shoal " + version.Version, Manual: "Shoal", Date: &at}
	if err := doc.GenManTree(root, header, pages); err != nil {
		return err
	}
	return completion(root, filepath.Join(dir, "completion"))
}

func completion(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range map[string]func(io.Writer) error{
		"shoal":      func(w io.Writer) error { return cli.BashCompletion(root, w) },
		"_shoal":     root.GenZshCompletion,
		"shoal.fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
	} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		err = write(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// UsagePage writes a manual page of section 8 from what a program prints when it is asked for help.
func UsagePage(w io.Writer, name, does, usage string, at time.Time) error {
	var text strings.Builder
	for line := range strings.Lines(usage) {
		line = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(line)
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		text.WriteString(line)
	}
	_, err := fmt.Fprintf(w, ".TH %s 8 %q %q Shoal\n.SH NAME\n%s \\- %s\n.SH USAGE\n.nf\n%s.fi\n.SH SEE ALSO\n.BR shoal (1),\nhttps://github.com/shoalhq/shoal\n",
		strings.ToUpper(name), at.UTC().Format("2006-01-02"), "Shoal "+version.Version, strings.ReplaceAll(name, "-", `\-`), does, text.String())
	return err
}
