package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/distribution/reference"
	moby "github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/progress"
	"github.com/shoalhq/shoal/lib/errs"
)

// noTrust declares the flag of Docker Content Trust, whose only value that still makes sense is the default.
func noTrust(fs *pflag.FlagSet) func() error {
	v := fs.Bool("disable-content-trust", true, "Skip image verification")
	_ = fs.MarkHidden("disable-content-trust")
	return func() error {
		if !*v {
			return errs.New(errs.Unsupported, "--disable-content-trust=false: Docker Content Trust (Notary v1) no longer exists; name the image by digest to be sure of its content")
		}
		return nil
	}
}

// remoteImage reads the name of an image in a registry, with the default tag unless all are meant, and finds the credentials.
func (a *App) remoteImage(name string, all, quiet bool) (ref reference.Named, auth string, err error) {
	if ref, err = reference.ParseNormalizedNamed(name); err != nil {
		return nil, "", badImage(name, err)
	}
	if all && !reference.IsNameOnly(ref) {
		return nil, "", badFlag("tag can't be used with --all-tags/-a")
	}
	if !all && reference.IsNameOnly(ref) {
		ref = reference.TagNameOnly(ref)
		if t, ok := ref.(reference.Tagged); ok && !quiet {
			fmt.Fprintf(a.Out, "Using default tag: %s\n", t.Tag())
		}
	}
	auth, err = a.authFor(name)
	return ref, auth, err
}

func pullCommand(a *App) *cobra.Command {
	var all, quiet bool
	var platform string
	var trust func() error
	cmd := a.command("pull [OPTIONS] NAME[:TAG|@DIGEST]", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		if err := trust(); err != nil {
			return err
		}
		ref, auth, err := a.remoteImage(args[0], all, quiet)
		if err != nil {
			return err
		}
		o := moby.ImagePullOptions{All: all, RegistryAuth: auth}
		if platform != "" {
			p, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			o.Platforms = []ocispec.Platform{*p}
		}
		res, err := api.ImagePull(ctx, reference.FamiliarString(ref), o)
		if err != nil {
			return err
		}
		defer res.Close()
		s := a.screen(a.Out)
		if quiet {
			s = progress.Screen{Out: discard{}}
		}
		if err := s.Messages(res, nil); err != nil {
			return err
		}
		a.say(ref.String())
		return nil
	})
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	trust = noTrust(fs)
	return cmd
}

func pushCommand(a *App) *cobra.Command {
	var all, quiet bool
	var platform string
	var trust func() error
	cmd := a.command("push [OPTIONS] NAME[:TAG]", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		if err := trust(); err != nil {
			return err
		}
		ref, auth, err := a.remoteImage(args[0], all, quiet)
		if err != nil {
			return err
		}
		o := moby.ImagePushOptions{All: all, RegistryAuth: auth}
		if platform != "" {
			if o.Platform, err = parsePlatform(platform); err != nil {
				return err
			}
		}
		res, err := api.ImagePush(ctx, reference.FamiliarString(ref), o)
		if err != nil {
			return err
		}
		defer res.Close()
		s := a.screen(a.Out)
		if quiet {
			s = progress.Screen{Out: discard{}}
		}
		if err := s.Messages(res, func(json.RawMessage) {}); err != nil {
			return err
		}
		if quiet {
			a.say(ref.String())
		}
		return nil
	})
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry, os[/arch[/variant]]")
	trust = noTrust(fs)
	return cmd
}
