package runflags

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/lib/errs"
)

// Flags holds the values of the flags that describe a container, by theme.
type Flags struct {
	process   process
	identity  identity
	security  security
	spaces    spaces
	network   netFlags
	ports     ports
	storage   storage
	logging   logging
	health    health
	resources Resources
	devices   devices
}

// part is one theme: it adds its flags and later writes its share of the request.
type part interface {
	add(fs *pflag.FlagSet)
	apply(fs *pflag.FlagSet, r *Request) error
}

// Request is what ContainerCreate takes, but for the name and the platform.
type Request struct {
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
	// Limited are values of --publish with from=, which the create request cannot carry.
	Limited []string
}

func (f *Flags) parts() []part {
	return []part{&f.process, &f.identity, &f.security, &f.spaces, &f.network, &f.ports, &f.storage, &f.logging,
		&f.health, &f.resources, &f.devices}
}

// Add declares the flags on fs.
func Add(fs *pflag.FlagSet) *Flags {
	f := &Flags{}
	for _, p := range f.parts() {
		p.add(fs)
	}
	addForeign(fs)
	return f
}

// Request makes the request for the image and the command with its arguments.
func (f *Flags) Request(fs *pflag.FlagSet, image string, command []string) (*Request, error) {
	if err := refuseForeign(fs); err != nil {
		return nil, err
	}
	r := &Request{
		Config:     &container.Config{Image: image},
		HostConfig: &container.HostConfig{},
		Networking: &network.NetworkingConfig{},
	}
	if len(command) > 0 {
		r.Config.Cmd = command
	}
	for _, p := range f.parts() {
		if err := p.apply(fs, r); err != nil {
			return nil, err
		}
	}
	if r.HostConfig.AutoRemove && !r.HostConfig.RestartPolicy.IsNone() {
		return nil, invalid("conflicting options: cannot specify both --restart and --rm")
	}
	return r, nil
}

// invalid is errs.New(errs.Invalid, ...): a flag's value cannot work.
func invalid(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }

// foreign are flags that mean something on Windows only. Docker's command line refuses them when the engine runs on
// Linux; so do we, without asking the engine.
var foreign = []string{"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"}

func addForeign(fs *pflag.FlagSet) {
	for _, name := range foreign {
		fs.String(name, "", "Windows only; refused on Linux")
		_ = fs.MarkHidden(name)
	}
	fs.String("kernel-memory", "", "Kernel memory limit; no longer supported by the kernel")
	_ = fs.MarkDeprecated("kernel-memory", "and no longer supported by the kernel")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	_ = fs.MarkHidden("disable-content-trust")
}

func refuseForeign(fs *pflag.FlagSet) error {
	for _, name := range foreign {
		if fs.Changed(name) {
			return errs.New(errs.Unsupported, "\"--%s\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux", name)
		}
	}
	if v, err := fs.GetBool("disable-content-trust"); err == nil && !v {
		return errs.New(errs.Unsupported, "--disable-content-trust=false: Docker Content Trust (Notary v1) no longer exists; name the image by digest to be sure of its content")
	}
	return nil
}

// ignoreCase makes a validator that accepts one of the words in any case and gives it back in lower case.
func ignoreCase(complaint string, words ...string) func(string) (string, error) {
	return func(val string) (string, error) {
		low := strings.ToLower(val)
		for _, w := range words {
			if low == w {
				return low, nil
			}
		}
		return val, fmt.Errorf("%s", complaint)
	}
}
