package cli

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

// A context in a file is Docker's: meta.json, and the certificates below tls/docker, in a tar archive or, to read, a zip file.

const (
	contextMeta = "meta.json"
	contextTLS  = "tls/docker/"
	contextMax  = 10 << 20 // as in Docker
)

var certificates = []string{"ca.pem", "cert.pem", "key.pem"}

// contextMetadata is meta.json.
type contextMetadata struct {
	Name     string
	Metadata struct {
		Description string `json:",omitempty"`
	}
	Endpoints map[string]struct {
		Host          string
		SkipTLSVerify bool
	}
}

func contextExportCommand(a *App) *cobra.Command {
	return &cobra.Command{Use: "export CONTEXT [FILE|-]", Args: count(1, 2), RunE: func(_ *cobra.Command, args []string) error {
		c := client.Context{Name: args[0]}
		files := map[string][]byte{}
		if err := a.copyContext(args[0], &c, files); err != nil {
			return err
		}
		to := args[0] + ".dockercontext"
		if len(args) > 1 {
			to = args[1]
		}
		if to == "-" {
			if terminalOf(a.Out) != nil {
				return badFlag("cowardly refusing to export to a terminal, specify a file path")
			}
			return writeContext(a.Out, c, files)
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it may hold a key
		if err != nil {
			return errs.Wrap(err, "export context %q", args[0])
		}
		err = writeContext(f, c, files)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(to)
			return errs.Wrap(err, "export context %q to %s", args[0], to)
		}
		fmt.Fprintf(a.Err, "Written file %q\n", to)
		return nil
	}}
}

func writeContext(w io.Writer, c client.Context, files map[string][]byte) error {
	meta := contextMetadata{Name: c.Name, Endpoints: map[string]struct {
		Host          string
		SkipTLSVerify bool
	}{"docker": {c.Host, c.SkipTLSVerify}}}
	meta.Metadata.Description = c.Description
	data, err := json.Marshal(&meta)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	put := func(name string, data []byte) {
		if err == nil {
			err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(data))})
		}
		if err == nil {
			_, err = t.Write(data)
		}
	}
	put(contextMeta, data)
	for _, name := range certificates {
		if data, ok := files[name]; ok {
			put(contextTLS+name, data)
		}
	}
	return errors.Join(err, t.Close())
}

func contextImportCommand(a *App) *cobra.Command {
	return &cobra.Command{Use: "import CONTEXT FILE|-", Args: count(2, 2), RunE: func(_ *cobra.Command, args []string) error {
		if _, err := client.LoadContext(a.configDir(), args[0]); err == nil {
			return errs.New(errs.Conflict, "context %q already exists", args[0])
		}
		in := a.In
		if args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return errs.Wrap(err, "import context %q", args[0])
			}
			defer f.Close()
			in = f
		}
		c, files, err := readContext(in)
		if err != nil {
			return errs.Wrap(err, "import context %q from %s", args[0], args[1])
		}
		c.Name = args[0]
		if err := client.SaveContext(a.configDir(), c, files); err != nil {
			return err
		}
		a.say(args[0])
		fmt.Fprintf(a.Err, "Successfully imported context %q\n", args[0])
		return nil
	}}
}

// readContext takes what it knows out of an archive; names lead nowhere, since only known ones are looked at.
func readContext(in io.Reader) (c client.Context, files map[string][]byte, err error) {
	data, err := io.ReadAll(io.LimitReader(in, contextMax+1))
	if err != nil {
		return c, nil, err
	}
	if len(data) > contextMax {
		return c, nil, errs.New(errs.Invalid, "the file is larger than %d bytes, which no context is", contextMax)
	}
	all := map[string][]byte{}
	if bytes.HasPrefix(data, []byte("PK")) {
		err = unzipContext(data, all)
	} else {
		err = untarContext(data, all)
	}
	if err != nil {
		return c, nil, errs.New(errs.Invalid, "neither a tar archive nor a zip file: %w", err)
	}
	var meta contextMetadata
	if all[contextMeta] == nil {
		return c, nil, errs.New(errs.Invalid, "there is no %s in it: it is no exported context", contextMeta)
	}
	if err := json.Unmarshal(all[contextMeta], &meta); err != nil {
		return c, nil, errs.New(errs.Invalid, "%s: %w", contextMeta, err)
	}
	ep, ok := meta.Endpoints["docker"]
	if !ok || ep.Host == "" {
		return c, nil, errs.New(errs.Invalid, "%s names no host of a docker endpoint", contextMeta)
	}
	c = client.Context{Description: meta.Metadata.Description, Host: ep.Host, SkipTLSVerify: ep.SkipTLSVerify}
	files = map[string][]byte{}
	for _, name := range certificates {
		if data, ok := all[contextTLS+name]; ok {
			files[name] = data
		}
	}
	return c, files, nil
}

func untarContext(data []byte, all map[string][]byte) error {
	t := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if all[filepath.Clean(h.Name)], err = io.ReadAll(t); err != nil { // within data: a tar archive is not packed
				return err
			}
		}
	}
}

func unzipContext(data []byte, all map[string][]byte) error {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	left := int64(contextMax)
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.LimitReader(r, left+1))
		r.Close()
		if left -= int64(len(content)); err == nil && left < 0 {
			err = errs.New(errs.Invalid, "unpacked it is larger than %d bytes", contextMax)
		}
		if err != nil {
			return err
		}
		all[filepath.Clean(f.Name)] = content
	}
	return nil
}
