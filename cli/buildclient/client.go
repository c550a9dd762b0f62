// Package buildclient carries out `shoal build`: it offers the context, secrets and credentials to the engine's BuildKit
// and shows the progress. It is linked into shoald, not into shoal, because BuildKit's packages cost milliseconds at each
// start. It talks to an engine's API only, and never to a daemon in the same process.
package buildclient

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	solverrors "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/buildflags"
	"github.com/shoalhq/shoal/lib/errs"
)

// Main runs one build, described by a buildflags.Request in JSON, and gives the exit code.
func Main(request string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	logrus.SetOutput(io.Discard) // libraries log there what is no concern of the user's
	var r buildflags.Request
	err := json.Unmarshal([]byte(request), &r)
	if err == nil {
		err = build(ctx, &r)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFound):
		return 1
	}
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "The build was cancelled")
		return 130
	}
	for _, s := range solverrors.Sources(err) {
		s.Print(os.Stderr)
	}
	fmt.Fprintln(os.Stderr, "ERROR:", err)
	return 1
}

func build(ctx context.Context, r *buildflags.Request) error {
	api, err := client.New(ctx, client.Options{Host: r.Server.Host, Context: r.Server.Context, ConfigDir: r.Server.ConfigDir, TLS: r.Server.TLS})
	if err != nil {
		return err
	}
	defer api.Close()
	opt, done, err := solveOptions(r)
	if err != nil {
		return err
	}
	defer done()
	bk, err := bkclient.New(ctx, "", bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return api.DialHijack(ctx, "/grpc", "h2c", map[string][]string{})
	}), bkclient.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
		return api.DialHijack(ctx, "/session", proto, meta)
	}))
	if err != nil {
		return err
	}
	defer bk.Close()
	if _, err := api.Ping(ctx, pingOptions); err != nil {
		return api.Explain(err)
	}
	if err := hostGateway(ctx, bk, opt.FrontendAttrs); err != nil {
		return err
	}
	method, asJSON, err := callOf(r.Output)
	if err != nil {
		return err
	}
	if method != "" {
		return call(ctx, bk, opt, method, asJSON, r.Output.Progress)
	}
	resp, err := solve(ctx, bk, opt, r.Output)
	if err != nil {
		return err
	}
	return report(r.Output, resp)
}

// hostGateway puts the host's address, which the engine knows, where --add-host NAME:host-gateway was given.
func hostGateway(ctx context.Context, bk *bkclient.Client, attrs map[string]string) error {
	const mark = "=host-gateway"
	hosts := strings.Split(attrs["add-hosts"], ",")
	if !slices.ContainsFunc(hosts, func(h string) bool { return strings.HasSuffix(h, mark) }) {
		return nil
	}
	workers, err := bk.ListWorkers(ctx)
	if err != nil {
		return err
	}
	addr := ""
	for _, w := range workers {
		addr = w.Labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"]
	}
	if addr == "" {
		return errs.New(errs.Invalid, "--add-host %s: the engine has no default network in which the host has an address; give the address", attrs["add-hosts"])
	}
	for i, h := range hosts {
		if name, ok := strings.CutSuffix(h, mark); ok {
			hosts[i] = name + "=" + addr
		}
	}
	attrs["add-hosts"] = strings.Join(hosts, ",")
	return nil
}

// solve runs the build and shows its progress.
func solve(ctx context.Context, bk *bkclient.Client, opt *bkclient.SolveOpt, out buildflags.Output) (map[string]string, error) {
	mode := progressui.DisplayMode(out.Progress)
	if out.Quiet {
		mode = progressui.QuietMode
	}
	var resp *bkclient.SolveResponse
	warnings, err := show(ctx, mode, func(ctx context.Context, status chan *bkclient.SolveStatus) (err error) {
		resp, err = bk.Solve(ctx, nil, *opt, status)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !out.Quiet && mode != progressui.RawJSONMode {
		tellWarnings(os.Stderr, warnings)
	}
	return resp.ExporterResponse, nil
}

// show runs what reports its progress to a channel, which it closes, and displays that.
func show(ctx context.Context, mode progressui.DisplayMode, run func(context.Context, chan *bkclient.SolveStatus) error) (warnings []bkclient.VertexWarning, err error) {
	display, err := progressui.NewDisplay(os.Stderr, mode)
	if err != nil {
		return nil, errs.New(errs.Invalid, "--progress %s: %w", mode, err)
	}
	status := make(chan *bkclient.SolveStatus)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return run(gctx, status) })
	group.Go(func() (err error) {
		// Its own context: the end of the build is shown also when the build failed.
		warnings, err = display.UpdateFrom(context.WithoutCancel(ctx), status)
		return err
	})
	return warnings, group.Wait()
}

// tellWarnings lists what the Dockerfile's checks found.
func tellWarnings(w io.Writer, list []bkclient.VertexWarning) {
	if len(list) == 0 {
		return
	}
	word := "warnings"
	if len(list) == 1 {
		word = "warning"
	}
	fmt.Fprintf(w, "\n %d %s found:\n", len(list), word)
	for _, warning := range list {
		where := ""
		if warning.SourceInfo != nil && len(warning.Range) > 0 {
			where = fmt.Sprintf(" (%s line %d)", warning.SourceInfo.Filename, warning.Range[0].Start.Line)
		}
		fmt.Fprintf(w, " - %s%s\n", warning.Short, where)
	}
}

// report writes the image's ID and the metadata where they are wanted.
func report(out buildflags.Output, resp map[string]string) error {
	id := resp[exptypes.ExporterImageConfigDigestKey]
	if id == "" {
		id = resp[exptypes.ExporterImageDigestKey]
	}
	if out.Quiet && id != "" {
		fmt.Println(id)
	}
	if out.IIDFile != "" {
		if err := os.WriteFile(out.IIDFile, []byte(id), 0o644); err != nil {
			return errs.Wrap(err, "write --iidfile")
		}
	}
	if out.MetadataFile == "" {
		return nil
	}
	data, err := json.MarshalIndent(metadata(resp), "", "  ")
	if err != nil {
		return err
	}
	return errs.Wrap(os.WriteFile(out.MetadataFile, data, 0o644), "write --metadata-file")
}

// metadata decodes what the exporters answered: some values are JSON in base64.
func metadata(resp map[string]string) map[string]any {
	m := map[string]any{}
	for k, v := range resp {
		m[k] = v
		if data, err := base64.StdEncoding.DecodeString(v); err == nil && strings.HasPrefix(string(data), "{") && json.Valid(data) {
			m[k] = json.RawMessage(data)
		}
	}
	return m
}

var errTwoStdin = errors.New("standard input cannot be the context and the Dockerfile at once: give a directory as context with -f -, or put the Dockerfile into the archive")
