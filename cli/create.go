package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/cli/runflags"
	"github.com/shoalhq/shoal/lib/errs"
)

// createFlags are the flags of create and run that are not part of the container's description.
type createFlags struct {
	name      string
	pull      string
	platform  string
	quiet     bool
	apiSocket bool
	container *runflags.Flags
}

func (c *createFlags) add(fs *pflag.FlagSet) {
	fs.SetInterspersed(false)
	fs.StringVar(&c.name, "name", "", "Assign a name to the container")
	fs.StringVar(&c.pull, "pull", "missing", `Pull image before creating ("always", "missing", "never")`)
	fs.StringVar(&c.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.BoolVar(&c.apiSocket, "use-api-socket", false, "Bind mount the engine's API socket and required auth")
	fs.Bool("help", false, "Print usage")
	c.container = runflags.Add(fs)
}

func createCommand(a *App) *cobra.Command {
	var c createFlags
	cmd := &cobra.Command{Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Args: count(1, -1)}
	c.add(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := c.request(a, cmd.Flags(), args)
		if err != nil {
			return runFailed(cmd, errs.ExitEngine, err, true)
		}
		id, err := c.create(cmd.Context(), a, req)
		if err != nil {
			return err
		}
		a.say(id)
		return nil
	}
	return cmd
}

// request reads the flags and arguments.
func (c *createFlags) request(a *App, fs *pflag.FlagSet, args []string) (*runflags.Request, error) {
	switch c.pull {
	case "always", "missing", "never", "":
	default:
		return nil, badFlag("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", c.pull)
	}
	api, err := a.API()
	if err != nil {
		return nil, err
	}
	api.Greet()
	go warmEncoder()
	c.container.SetProxies(a.proxyVars(api.DaemonHost()))
	req, err := c.container.Request(fs, args[0], args[1:])
	if err != nil {
		return nil, err
	}
	if t := terminalOf(a.Out); t != nil {
		if rows, cols, err := t.Size(); err == nil {
			req.HostConfig.ConsoleSize = [2]uint{rows, cols}
		}
	}
	return req, nil
}

// create creates the container, pulls the image when it is missing and may be pulled, and writes the --cidfile.
func (c *createFlags) create(ctx context.Context, a *App, req *runflags.Request) (string, error) {
	api, err := a.API()
	if err != nil {
		return "", err
	}
	api.Greeted()
	o := moby.ContainerCreateOptions{Name: c.name, Config: req.Config, HostConfig: req.HostConfig, NetworkingConfig: req.Networking}
	if c.platform != "" {
		p, err := parsePlatform(c.platform)
		if err != nil {
			return "", err
		}
		o.Platform = p
	}
	var inject func(id string) error
	if c.apiSocket {
		if inject, err = a.giveSocket(req); err != nil {
			return "", err
		}
	}
	cid, err := newCIDFile(req.HostConfig.ContainerIDFile)
	if err != nil {
		return "", err
	}
	defer cid.close()
	image := req.Config.Image
	if c.pull == "always" {
		if err := a.pullFor(ctx, image, o.Platform, c.quiet); err != nil {
			return "", err
		}
	}
	limited, err := readLimited(req.Limited)
	if err != nil {
		return "", err
	}
	res, err := api.ContainerCreate(ctx, o)
	if errdefs.IsNotFound(err) && (c.pull == "missing" || c.pull == "") && namesImage(err) {
		if !c.quiet {
			fmt.Fprintf(a.Err, "Unable to find image '%s' locally\n", familiar(image))
		}
		if err := a.pullFor(ctx, image, o.Platform, c.quiet); err != nil {
			return "", err
		}
		res, err = api.ContainerCreate(ctx, o)
	}
	if err != nil {
		return "", err
	}
	if err := limited.apply(ctx, api, res.ID); err != nil {
		api.ContainerRemove(context.WithoutCancel(ctx), res.ID, moby.ContainerRemoveOptions{Force: true})
		return "", err
	}
	if inject != nil {
		if err := inject(res.ID); err != nil {
			res.Warnings = append(res.Warnings, fmt.Sprintf("injecting docker config.json into container failed: %v", err))
		}
	}
	a.warnings(res.Warnings)
	return res.ID, cid.write(res.ID)
}

// warmEncoder lets encoding/json find out about the types of a create request, which takes it 0.4 ms, while the flags are read and
// the server is greeted.
func warmEncoder() { _, _ = json.Marshal(container.CreateRequest{Config: &container.Config{}}) }

// limitedPorts are published ports that only some may connect to, which the create request has no words for. They are
// added before the container runs, so no port is open to all meanwhile.
type limitedPorts types.PortChange

func readLimited(flags []string) (l limitedPorts, err error) {
	for _, s := range flags {
		specs, err := readPublish(s, "--publish")
		if err != nil {
			return l, err
		}
		l.Add = append(l.Add, specs...)
	}
	return l, nil
}

func (l limitedPorts) apply(ctx context.Context, api *client.Client, id string) error {
	if len(l.Add) == 0 {
		return nil
	}
	return api.Call(ctx, "POST", "/shoal/containers/"+id+"/ports", types.PortChange(l), nil)
}

// namesImage tells the answer "no such image" from others of the same status, as for a network that does not exist:
// pulling would not help there.
func namesImage(err error) bool {
	return !strings.Contains(err.Error(), "network") && !strings.Contains(err.Error(), "No such container")
}

func parsePlatform(s string) (*ocispec.Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, badFlag("error parsing specified platform %q: %w; write os[/arch[/variant]], for example linux/arm64", s, err)
	}
	return &p, nil
}

// cidFile is the file of --cidfile: made before the container so that a bad path costs nothing, gone if creation fails.
type cidFile struct {
	path    string
	file    *os.File
	written bool
}

func newCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return nil, errs.New(errs.Conflict, "container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, errs.Wrap(err, "failed to create the container ID file")
	}
	return &cidFile{path: path, file: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.file == nil {
		return nil
	}
	if _, err := c.file.WriteString(id); err != nil {
		return errs.Wrap(err, "failed to write the container ID (%s) to file", id)
	}
	c.written = true
	return nil
}

func (c *cidFile) close() {
	if c.file == nil {
		return
	}
	_ = c.file.Close()
	if !c.written {
		_ = os.Remove(c.path)
	}
}
