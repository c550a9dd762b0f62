package cli

import (
	"context"
	"os"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	moby "github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/cli/progress"
	"github.com/shoalhq/shoal/lib/errs"
)

// hubIndex is the name under which credentials for Docker Hub are kept, for historical reasons.
const hubIndex = "https://index.docker.io/v1/"

// credentials opens the configuration file with the credential helpers it names.
func (a *App) credentials() (*configfile.ConfigFile, error) {
	c, err := config.Load(a.configDir())
	return c, errs.Wrap(err, "read credentials from %s", a.configDir())
}

// authFor gives the credentials for the registry of an image as the API's header wants them.
func (a *App) authFor(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", badImage(image, err)
	}
	host := reference.Domain(named)
	if host == "docker.io" {
		host = hubIndex
	}
	c, err := a.credentials()
	if err != nil {
		return "", err
	}
	got, err := c.GetAuthConfig(host)
	if err != nil {
		return "", errs.Wrap(err, "get the credentials for %s", host)
	}
	return authconfig.Encode(registry.AuthConfig{Username: got.Username, Password: got.Password, Auth: got.Auth,
		ServerAddress: got.ServerAddress, IdentityToken: got.IdentityToken, RegistryToken: got.RegistryToken})
}

func badImage(image string, err error) error {
	return badFlag("%q is not an image name: %w; write [REGISTRY/]NAME[:TAG|@DIGEST] in lower case", image, err)
}

// familiar is the short form of an image's name with its tag.
func familiar(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	return reference.FamiliarString(reference.TagNameOnly(named))
}

// screen is where progress goes: standard error for verbs whose output is data.
func (a *App) screen(stream any) progress.Screen {
	s := progress.Screen{Out: a.Err}
	if stream == any(a.Out) {
		s.Out = a.Out
	}
	if t := terminalOf(stream); t != nil && os.Getenv("TERM") != "dumb" {
		s.Size = func() (int, int) {
			rows, cols, err := t.Size()
			if err != nil || cols == 0 {
				return 0, 80 // a terminal that does not know its size
			}
			return int(rows), int(cols)
		}
		_, s.Width = s.Size()
	}
	return s
}

// pullFor pulls an image on the way to something else: progress goes to standard error.
func (a *App) pullFor(ctx context.Context, image string, platform *ocispec.Platform, quiet bool) error {
	api, err := a.API()
	if err != nil {
		return err
	}
	auth, err := a.authFor(image)
	if err != nil {
		return err
	}
	o := moby.ImagePullOptions{RegistryAuth: auth}
	if platform != nil {
		o.Platforms = []ocispec.Platform{*platform}
	}
	res, err := api.ImagePull(ctx, image, o)
	if err != nil {
		return err
	}
	defer res.Close()
	s := a.screen(a.Err)
	if quiet {
		s = progress.Screen{Out: discard{}}
	}
	return s.Messages(res, nil)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
