package cli

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/doctor/explain"
	"github.com/shoalhq/shoal/lib/errs"
)

func (a *App) bundleCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "bundle [OPTIONS]", Args: count(0, 0), Short: "Write an archive for support, secrets removed"}
	cmd.Long = "Write a tar.gz archive of what support needs: the report of doctor, the engine's version and settings, all containers, networks,\n" +
		"volumes and images, recent events, and why containers stopped. Values of environments, credentials, tokens and keys are\n" +
		"removed, names stay: read it before you give it away. Logs of containers are not part of it."
	cmd.Flags().StringVarP(&out, "output", "o", "", `Write to a file, or to standard output with "-" (default "shoal-bundle-TIME.tar.gz")`)
	cmd.Flags().BoolP("help", "h", false, "Print usage")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "-" {
			return a.bundle(cmd.Context(), a.Out)
		}
		if out == "" {
			out = "shoal-bundle-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
		}
		f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return errs.Wrap(err, "write the bundle")
		}
		err = a.bundle(cmd.Context(), f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(out)
			return err
		}
		_, err = fmt.Fprintln(a.Out, out)
		return err
	}
	return cmd
}

// bundleWriter puts documents into the archive. What could not be had goes into errors.txt.
type bundleWriter struct {
	tar    *tar.Writer
	now    time.Time
	failed []string
}

func (b *bundleWriter) add(name string, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "shoal-bundle/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.now}
	if err := b.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := b.tar.Write(data)
	return err
}

// document adds JSON without its secrets.
func (b *bundleWriter) document(name string, raw []byte) error {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		b.failed = append(b.failed, name+": "+err.Error())
		return nil
	}
	clean, err := json.MarshalIndent(doctor.Redact(v), "", "  ")
	if err != nil {
		return err
	}
	return b.add(name, append(clean, '\n'))
}

const maxDocument = 64 << 20

// fetch asks the engine and adds the answer.
func (b *bundleWriter) fetch(ctx context.Context, api *client.Client, name, path string) ([]byte, error) {
	body, err := api.Stream(ctx, http.MethodGet, path, nil)
	if err != nil {
		b.failed = append(b.failed, name+": "+doctor.RedactText(err.Error()))
		return nil, nil
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, maxDocument))
	if err != nil {
		b.failed = append(b.failed, name+": "+err.Error())
		return nil, nil
	}
	return raw, b.document(name, raw)
}

func (a *App) bundle(ctx context.Context, w io.Writer) error {
	z := gzip.NewWriter(w)
	b := &bundleWriter{tar: tar.NewWriter(z), now: time.Now()}
	report, err := json.Marshal(a.examine(ctx, doctor.Options{}))
	if err == nil {
		err = b.document("doctor.json", report)
	}
	if err != nil {
		return err
	}
	if api, err := a.API(); err != nil {
		b.failed = append(b.failed, "engine: "+err.Error())
	} else if err := b.engine(ctx, api); err != nil {
		return err
	}
	if len(b.failed) > 0 {
		if err := b.add("errors.txt", []byte(strings.Join(b.failed, "\n")+"\n")); err != nil {
			return err
		}
	}
	if err := b.tar.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (b *bundleWriter) engine(ctx context.Context, api *client.Client) error {
	for name, path := range map[string]string{"version.json": "/version", "info.json": "/info", "networks.json": "/networks", "volumes.json": "/volumes",
		"images.json": "/images/json", "ports.json": "/shoal/ports", "sockets.json": "/shoal/sockets", "disk.json": "/system/df"} {
		if _, err := b.fetch(ctx, api, name, path); err != nil {
			return err
		}
	}
	if err := b.events(ctx, api); err != nil {
		return err
	}
	raw, err := b.fetch(ctx, api, "containers.json", "/containers/json?all=1")
	if err != nil {
		return err
	}
	var list []struct{ ID, State string }
	json.Unmarshal(raw, &list)
	for _, c := range list {
		if _, err := b.fetch(ctx, api, "containers/"+c.ID+".json", "/containers/"+c.ID+"/json"); err != nil {
			return err
		}
		var r explain.Report
		if err := api.Call(ctx, "POST", "/shoal/explain", types.Explain{Name: c.ID, Type: "container"}, &r); err != nil {
			b.failed = append(b.failed, "explain "+c.ID+": "+err.Error())
			continue
		}
		for i := range r.Findings { // what containers print is theirs
			r.Findings[i].Evidence = nil
		}
		if err := b.add("containers/"+c.ID+".txt", []byte(doctor.RedactText(r.Text()))); err != nil {
			return err
		}
	}
	return nil
}

// events adds those of the last day that the engine remembers.
func (b *bundleWriter) events(ctx context.Context, api *client.Client) error {
	q := url.Values{"since": {fmt.Sprint(b.now.Add(-24 * time.Hour).Unix())}, "until": {fmt.Sprintf("%d.%09d", b.now.Unix(), b.now.Nanosecond())}}
	body, err := api.Stream(ctx, http.MethodGet, "/events?"+q.Encode(), nil)
	if err != nil {
		b.failed = append(b.failed, "events: "+err.Error())
		return nil
	}
	defer body.Close()
	d := json.NewDecoder(io.LimitReader(body, maxDocument))
	var out strings.Builder
	for {
		var v any
		if err := d.Decode(&v); err != nil {
			break
		}
		line, _ := json.Marshal(doctor.Redact(v))
		out.Write(append(line, '\n'))
	}
	return b.add("events.json", []byte(out.String()))
}
