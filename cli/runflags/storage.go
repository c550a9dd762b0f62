package runflags

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

type storage struct {
	volumes      opts.ListOpts
	volumeDriver string
	volumesFrom  opts.ListOpts
	mounts       opts.MountOpt
	tmpfs        opts.ListOpts
	storageOpts  opts.ListOpts
	shmSize      opts.MemBytes
	cidFile      string
}

func (s *storage) add(fs *pflag.FlagSet) {
	s.volumes, s.volumesFrom = opts.NewListOpts(nil), opts.NewListOpts(nil)
	s.tmpfs, s.storageOpts = opts.NewListOpts(nil), opts.NewListOpts(nil)
	fs.VarP(&s.volumes, "volume", "v", "Bind mount a volume")
	fs.StringVar(&s.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	fs.Var(&s.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	fs.Var(&s.mounts, "mount", "Attach a filesystem mount to the container")
	fs.Var(&s.tmpfs, "tmpfs", "Mount a tmpfs directory")
	fs.Var(&s.storageOpts, "storage-opt", "Storage driver options for the container")
	fs.Var(&s.shmSize, "shm-size", "Size of /dev/shm")
	fs.StringVar(&s.cidFile, "cidfile", "", "Write the container ID to the file")
}

func (s *storage) apply(_ *pflag.FlagSet, r *Request) error {
	h := r.HostConfig
	h.ContainerIDFile, h.VolumeDriver, h.ShmSize = s.cidFile, s.volumeDriver, s.shmSize.Value()
	h.VolumesFrom, h.Mounts = s.volumesFrom.GetSlice(), s.mounts.Value()
	r.Config.Volumes = map[string]struct{}{}
	for _, v := range s.volumes.GetSlice() {
		bind, err := bindSpec(v)
		if err != nil {
			return err
		}
		switch {
		case bind == "":
			r.Config.Volumes[v] = struct{}{} // anonymous
		case !slices.Contains(h.Binds, bind):
			h.Binds = append(h.Binds, bind)
		}
	}
	h.Tmpfs = map[string]string{}
	for _, t := range s.tmpfs.GetSlice() {
		path, options, _ := strings.Cut(t, ":")
		h.Tmpfs[path] = options
	}
	h.StorageOpt = map[string]string{}
	for _, o := range s.storageOpts.GetSlice() {
		key, val, ok := strings.Cut(o, "=")
		if !ok {
			return invalid("invalid storage option %q: use key=value", o)
		}
		h.StorageOpt[key] = val
	}
	return nil
}

// bindSpec checks the shape of a -v value, SOURCE:TARGET[:OPTIONS], and makes a source that starts with a dot absolute:
// the engine has another working directory. A value without a source (an anonymous volume) gives "".
func bindSpec(v string) (string, error) {
	if v == "" {
		return "", invalid("invalid empty volume spec")
	}
	if len(v) <= 2 {
		return "", nil // too short for SOURCE:TARGET
	}
	fields := strings.Split(v, ":")
	if slices.Contains(fields, "") {
		return "", invalid("invalid spec: %s: empty section between colons", v)
	}
	if len(fields) > 3 {
		return "", invalid("invalid spec: %s: too many colons", v)
	}
	if len(fields) == 1 {
		return "", nil
	}
	if strings.HasPrefix(fields[0], ".") {
		if abs, err := filepath.Abs(fields[0]); err == nil {
			fields[0] = abs
		}
	}
	return strings.Join(fields, ":"), nil
}

type logging struct {
	driver  string
	options opts.ListOpts
}

func (l *logging) add(fs *pflag.FlagSet) {
	l.options = opts.NewListOpts(nil)
	fs.StringVar(&l.driver, "log-driver", "", "Logging driver for the container")
	fs.Var(&l.options, "log-opt", "Log driver options")
}

func (l *logging) apply(_ *pflag.FlagSet, r *Request) error {
	if l.driver == "none" && l.options.Len() > 0 {
		return invalid("invalid logging opts for driver none: it keeps nothing, so it has no options; leave out --log-opt")
	}
	r.HostConfig.LogConfig = container.LogConfig{Type: l.driver, Config: opts.ConvertKVStringsToMap(l.options.GetSlice())}
	return nil
}
