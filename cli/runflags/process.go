package runflags

import (
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// process is what runs and how it is attached.
type process struct {
	attach      opts.ListOpts
	entrypoint  string
	user        string
	workdir     string
	tty         bool
	interactive bool
	stopSignal  string
	stopTimeout int
	init        bool
	autoRemove  bool
	restart     string
	umask       opts.UmaskOpt
}

func (p *process) add(fs *pflag.FlagSet) {
	p.attach = opts.NewListOpts(ignoreCase("valid streams are STDIN, STDOUT and STDERR", "stdin", "stdout", "stderr"))
	fs.VarP(&p.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.StringVar(&p.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.StringVarP(&p.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&p.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.BoolVarP(&p.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVarP(&p.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.StringVar(&p.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&p.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.BoolVar(&p.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.BoolVar(&p.autoRemove, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.StringVar(&p.restart, "restart", string(container.RestartPolicyDisabled), "Restart policy to apply when a container exits")
	fs.Var(&p.umask, "umask", "Set umask for the container")
}

func (p *process) apply(fs *pflag.FlagSet, r *Request) (err error) {
	c, h := r.Config, r.HostConfig
	c.User, c.WorkingDir, c.StopSignal = p.user, p.workdir, p.stopSignal
	c.Tty, c.OpenStdin = p.tty, p.interactive
	c.AttachStdin = p.interactive || p.attach.Get("stdin")
	c.AttachStdout = p.attach.Len() == 0 || p.attach.Get("stdout")
	c.AttachStderr = p.attach.Len() == 0 || p.attach.Get("stderr")
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	switch {
	case p.entrypoint != "":
		c.Entrypoint = []string{p.entrypoint}
	case fs.Changed("entrypoint"):
		// --entrypoint "" takes the image's away; the API's sign for that is one empty string.
		c.Entrypoint = []string{""}
	}
	if fs.Changed("stop-timeout") {
		c.StopTimeout = &p.stopTimeout
	}
	if fs.Changed("init") {
		h.Init = &p.init
	}
	h.AutoRemove = p.autoRemove
	h.Umask = p.umask.Value()
	h.RestartPolicy, err = opts.ParseRestartPolicy(p.restart)
	return err
}

// identity is what the container is called and told about itself.
type identity struct {
	hostname    string
	domainname  string
	env         opts.ListOpts
	envFile     opts.ListOpts
	labels      opts.ListOpts
	labelFile   opts.ListOpts
	annotations *opts.MapOpts
	proxies     map[string]*string
}

func (i *identity) add(fs *pflag.FlagSet) {
	i.env = opts.NewListOpts(opts.ValidateEnv)
	i.envFile = opts.NewListOpts(nil)
	i.labels = opts.NewListOpts(opts.ValidateLabel)
	i.labelFile = opts.NewListOpts(nil)
	i.annotations = opts.NewMapOpts(nil, nil)
	fs.StringVarP(&i.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&i.domainname, "domainname", "", "Container NIS domain name")
	fs.VarP(&i.env, "env", "e", "Set environment variables")
	fs.Var(&i.envFile, "env-file", "Read in a file of environment variables")
	fs.VarP(&i.labels, "label", "l", "Set meta data on a container")
	fs.Var(&i.labelFile, "label-file", "Read in a line delimited file of labels")
	fs.Var(i.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
}

func (i *identity) apply(_ *pflag.FlagSet, r *Request) error {
	env, err := opts.ReadKVEnvStrings(i.envFile.GetSlice(), lastOfEach(i.env.GetSlice()))
	if err != nil {
		return invalid("--env-file: %w", err)
	}
	labels, err := opts.ReadKVStrings(i.labelFile.GetSlice(), i.labels.GetSlice())
	if err != nil {
		return invalid("--label-file: %w", err)
	}
	r.Config.Hostname, r.Config.Domainname = i.hostname, i.domainname
	r.Config.Env = append(i.proxyEnv(env), env...)
	r.Config.Labels = opts.ConvertKVStringsToMap(labels)
	r.HostConfig.Annotations = i.annotations.GetAll()
	return nil
}

// lastOfEach leaves of several settings of the same variable the last.
func lastOfEach(env []string) []string {
	at := make(map[string]int, len(env))
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}
