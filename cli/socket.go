package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/mount"
	moby "github.com/moby/moby/client"

	"github.com/shoalhq/shoal/cli/runflags"
	"github.com/shoalhq/shoal/lib/errs"
)

const credentialsInContainer = "/run/secrets/docker/config.json"

// giveSocket makes the engine's socket part of the container (--use-api-socket), and gives a function that copies the
// credentials of this user into the container after its creation; nil when there are none or DOCKER_CONFIG is set.
func (a *App) giveSocket(req *runflags.Request) (func(id string) error, error) {
	host := a.client.Endpoint().Host
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, errs.New(errs.Unsupported, "--use-api-socket mounts the engine's unix socket, but the engine was reached at %s, so its socket's path is not known; mount it with --volume", host)
	}
	req.HostConfig.Mounts = append(req.HostConfig.Mounts, mount.Mount{Type: mount.TypeBind, Source: path,
		Target: "/var/run/docker.sock", BindOptions: &mount.BindOptions{}})
	if slices.ContainsFunc(req.Config.Env, func(e string) bool { return strings.HasPrefix(e, "DOCKER_CONFIG=") }) {
		return nil, nil
	}
	c, err := a.credentials()
	if err != nil {
		return nil, err
	}
	all, err := c.GetAllCredentials()
	if err != nil {
		return nil, errs.Wrap(err, "resolving credentials failed")
	}
	if len(all) == 0 {
		return nil, nil
	}
	req.Config.Env = append(req.Config.Env, "DOCKER_CONFIG=/run/secrets/docker")
	return func(id string) error {
		data, err := json.Marshal(map[string]any{"auths": all})
		if err != nil {
			return err
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		now := time.Now()
		for _, h := range []*tar.Header{
			{Typeflag: tar.TypeDir, Name: "run/secrets/docker/", Mode: 0o700, ModTime: now},
			{Typeflag: tar.TypeReg, Name: credentialsInContainer[1:], Mode: 0o600, Size: int64(len(data)), ModTime: now},
		} {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		_, err = a.client.CopyToContainer(context.Background(), id, moby.CopyToContainerOptions{DestinationPath: "/", Content: &b})
		return err
	}, nil
}
