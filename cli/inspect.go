package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/errs"
)

// thing is what inspect shows: the typed value for templates and the engine's own words for JSON.
type thing struct {
	value any
	raw   json.RawMessage
}

type lookUp func(ctx context.Context, name string) (thing, error)

// kinds are the sorts of things that inspect finds, in the order in which they are tried.
func (a *App) kinds(size bool, platform string) []struct {
	name string
	find lookUp
} {
	return []struct {
		name string
		find lookUp
	}{
		{"container", a.findContainer(size)}, {"image", a.findImage(platform)},
		{"network", a.findNetwork("", false)}, {"volume", a.findVolume},
	}
}

func (a *App) findContainer(size bool) lookUp {
	return func(ctx context.Context, name string) (thing, error) {
		r, err := a.client.ContainerInspect(ctx, name, moby.ContainerInspectOptions{Size: size})
		return thing{&r.Container, r.Raw}, err
	}
}

func (a *App) findImage(platform string) lookUp {
	return func(ctx context.Context, name string) (thing, error) {
		var raw bytes.Buffer
		o := []moby.ImageInspectOption{moby.ImageInspectWithRawResponse(&raw)}
		if platform != "" {
			p, err := parsePlatform(platform)
			if err != nil {
				return thing{}, err
			}
			o = append(o, moby.ImageInspectWithPlatform(p))
		}
		r, err := a.client.ImageInspect(ctx, name, o...)
		return thing{&r.InspectResponse, raw.Bytes()}, err
	}
}

func (a *App) findNetwork(scope string, verbose bool) lookUp {
	return func(ctx context.Context, name string) (thing, error) {
		r, err := a.client.NetworkInspect(ctx, name, moby.NetworkInspectOptions{Scope: scope, Verbose: verbose})
		return thing{&r.Network, r.Raw}, err
	}
}

func (a *App) findVolume(ctx context.Context, name string) (thing, error) {
	r, err := a.client.VolumeInspect(ctx, name, moby.VolumeInspectOptions{})
	return thing{&r.Volume, r.Raw}, err
}

func inspectCommand(a *App) *cobra.Command {
	var f, kind string
	var size bool
	cmd := a.command("inspect [OPTIONS] NAME|ID [NAME|ID...]", count(1, -1), func(ctx context.Context, _ *client.Client, args []string) error {
		all := a.kinds(size, "")
		find := func(ctx context.Context, name string) (thing, error) {
			for _, k := range all {
				t, err := k.find(ctx, name)
				if errdefs.IsNotFound(err) {
					continue
				}
				return t, err
			}
			return thing{}, errs.New(errs.NotFound, "Error: No such object: %s", name)
		}
		if kind != "" {
			find = nil
			for _, k := range all {
				if k.name == kind {
					find = k.find
				}
			}
			if find == nil {
				return badFlag("unknown type: %q; it is one of container, image, network, volume", kind)
			}
		}
		return a.inspect(ctx, args, f, find)
	})
	fs := cmd.Flags()
	fs.StringVarP(&f, "format", "f", "", valueFormatHelp)
	fs.StringVar(&kind, "type", "", "Only inspect objects of the given type")
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd
}

// inspect shows the things named, as a JSON list or each through a template. Those that are found are shown even when
// others are not.
func (a *App) inspect(ctx context.Context, names []string, f string, find lookUp) error {
	var found []thing
	var failed []error
	for _, n := range names {
		t, err := find(ctx, n)
		if err != nil {
			if client.IsConnection(err) {
				return err
			}
			failed = append(failed, err)
			continue
		}
		found = append(found, t)
	}
	if f != "" && f != "json" {
		for _, t := range found {
			if err := format.Value(a.Out, f, t.value, t.raw); err != nil {
				return err
			}
		}
	} else {
		var b bytes.Buffer
		b.WriteByte('[')
		for i, t := range found {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(t.raw)
		}
		b.WriteByte(']')
		var out bytes.Buffer
		err := json.Compact(&out, b.Bytes())
		if f == "" {
			out.Reset()
			err = json.Indent(&out, b.Bytes(), "", "    ")
		}
		if err != nil {
			return errs.New(errs.Internal, "the engine's answer is not valid JSON: %w", err)
		}
		fmt.Fprintln(a.Out, out.String())
	}
	for _, err := range failed {
		fmt.Fprintln(a.Err, a.explain(err))
	}
	if len(failed) > 0 {
		return exit{code: errs.ExitFailure}
	}
	return nil
}

// inspectOne makes the inspect verb of a noun.
func (a *App) inspectOne(use string, flags func(cmd *cobra.Command) func() lookUp) *cobra.Command {
	var f string
	var make func() lookUp
	cmd := a.command(use, count(1, -1), func(ctx context.Context, _ *client.Client, args []string) error {
		return a.inspect(ctx, args, f, make())
	})
	cmd.Flags().StringVarP(&f, "format", "f", "", valueFormatHelp)
	make = flags(cmd)
	return cmd
}

func containerInspectCommand(a *App) *cobra.Command {
	return a.inspectOne("inspect [OPTIONS] CONTAINER [CONTAINER...]", func(cmd *cobra.Command) func() lookUp {
		size := cmd.Flags().BoolP("size", "s", false, "Display total file sizes")
		return func() lookUp { return a.findContainer(*size) }
	})
}

func imageInspectCommand(a *App) *cobra.Command {
	return a.inspectOne("inspect [OPTIONS] IMAGE [IMAGE...]", func(cmd *cobra.Command) func() lookUp {
		platform := cmd.Flags().String("platform", "", "Inspect a specific platform of the multi-platform image, os[/arch[/variant]]")
		return func() lookUp { return a.findImage(*platform) }
	})
}

func networkInspectCommand(a *App) *cobra.Command {
	return a.inspectOne("inspect [OPTIONS] NETWORK [NETWORK...]", func(cmd *cobra.Command) func() lookUp {
		verbose := cmd.Flags().BoolP("verbose", "v", false, "Verbose output for diagnostics")
		return func() lookUp { return a.findNetwork("", *verbose) }
	})
}

func volumeInspectCommand(a *App) *cobra.Command {
	return a.inspectOne("inspect [OPTIONS] VOLUME [VOLUME...]", func(*cobra.Command) func() lookUp {
		return func() lookUp { return a.findVolume }
	})
}
