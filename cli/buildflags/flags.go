// Package buildflags are the flags of `shoal build`, read by the command line, which must stay small, and carried out by
// the build client (cli/buildclient), which brings BuildKit with it. It only describes; nothing is checked against files.
package buildflags

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

// Request is what the command line hands to the build client.
type Request struct {
	Server  Server
	Context string // directory, "-", URL
	Source  Source
	Options Options
	Output  Output
	Limits  Limits
}

// Server says which engine to talk to, as client.Options do.
type Server struct {
	Host, Context, ConfigDir string
	TLS                      client.TLSOptions
}

// Source is what is built.
type Source struct {
	File      string
	Target    string
	Args      []string
	Labels    []string
	Contexts  []string // NAME=VALUE
	Platforms []string
	Tags      []string
	Notes     []string // annotations
}

// Options are how it is built.
type Options struct {
	NoCache       bool
	NoCacheFilter []string
	Pull          bool
	CacheFrom     []string
	CacheTo       []string
	Secrets       []string
	SSH           []string
	Network       string
	AddHosts      []string
	Allow         []string
	Attest        []string
	Squash        bool
}

// Output is what becomes of the result and of the progress.
type Output struct {
	Outputs      []string
	Load, Push   bool
	Progress     string
	Quiet        bool
	IIDFile      string
	MetadataFile string
	Provenance   string
	SBOM         string
	Call         string // what to ask the front end for: "build", "check", "outline", "targets"
	Check        bool
}

// Limits hold for each step.
type Limits struct {
	CgroupParent string
	ShmSize      string
	Ulimits      []string
	Memory       string
	MemorySwap   string
	CPUShares    int64
	CPUPeriod    int64
	CPUQuota     int64
	CpusetCPUs   string
	CpusetMems   string
}

// Bind defines the flags.
func (r *Request) Bind(f *pflag.FlagSet) {
	s, o, out, l := &r.Source, &r.Options, &r.Output, &r.Limits
	f.StringArrayVar(&o.AddHosts, "add-host", nil, `Add a custom host-to-IP mapping (format: "host:ip")`)
	f.StringArrayVar(&o.Allow, "allow", nil, `Allow extra privileged entitlement (e.g., "network.host", "security.insecure")`)
	f.StringArrayVar(&s.Notes, "annotation", nil, "Add annotation to the image")
	f.StringArrayVar(&o.Attest, "attest", nil, `Attestation parameters (format: "type=sbom,generator=image")`)
	f.StringArrayVar(&s.Args, "build-arg", nil, "Set build-time variables")
	f.StringArrayVar(&s.Contexts, "build-context", nil, "Additional build contexts (e.g., name=path)")
	f.StringArrayVar(&o.CacheFrom, "cache-from", nil, `External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")`)
	f.StringArrayVar(&o.CacheTo, "cache-to", nil, `Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")`)
	f.StringVar(&out.Call, "call", "build", `Set method for evaluating build ("check", "outline", "targets"; ",format=json" for the answer as it is)`)
	f.BoolVar(&out.Check, "check", false, `Shorthand for "--call=check"`)
	f.StringVar(&l.CgroupParent, "cgroup-parent", "", "Set the parent cgroup for the RUN instructions during build")
	f.Int64Var(&l.CPUPeriod, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&l.CPUQuota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	f.Int64VarP(&l.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.StringVar(&l.CpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&l.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.StringVarP(&s.File, "file", "f", "", `Name of the Dockerfile (default: "PATH/Dockerfile")`)
	f.StringVar(&out.IIDFile, "iidfile", "", "Write the image ID to a file")
	f.StringArrayVar(&s.Labels, "label", nil, "Set metadata for an image")
	f.BoolVar(&out.Load, "load", false, `Shorthand for "--output=type=docker": the image goes to the engine's store, as it does anyway`)
	f.StringVarP(&l.Memory, "memory", "m", "", "Memory limit")
	f.StringVar(&l.MemorySwap, "memory-swap", "", `Swap limit equal to memory plus swap: "-1" to enable unlimited swap`)
	f.StringVar(&out.MetadataFile, "metadata-file", "", "Write build result metadata to a file")
	f.StringVar(&o.Network, "network", "default", `Set the networking mode for the "RUN" instructions during build: default, none, host`)
	f.BoolVar(&o.NoCache, "no-cache", false, "Do not use cache when building the image")
	f.StringSliceVar(&o.NoCacheFilter, "no-cache-filter", nil, "Do not cache specified stages")
	f.StringArrayVarP(&out.Outputs, "output", "o", nil, `Output destination (format: "type=local,dest=path")`)
	f.StringSliceVar(&s.Platforms, "platform", set("DOCKER_DEFAULT_PLATFORM"), "Set target platform for build")
	f.StringVar(&out.Progress, "progress", append(set("BUILDKIT_PROGRESS"), "auto")[0], `Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson"). Use plain to show container output`)
	f.StringVar(&out.Provenance, "provenance", "", `Shorthand for "--attest=type=provenance"`)
	f.BoolVar(&o.Pull, "pull", false, "Always attempt to pull all referenced images")
	f.BoolVar(&out.Push, "push", false, `Shorthand for "--output=type=registry"`)
	f.BoolVarP(&out.Quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	f.StringVar(&out.SBOM, "sbom", "", `Shorthand for "--attest=type=sbom"`)
	f.StringArrayVar(&o.Secrets, "secret", nil, `Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")`)
	f.StringVar(&l.ShmSize, "shm-size", "", `Shared memory size for build containers`)
	f.BoolVar(&o.Squash, "squash", false, "Squash newly built layers into a single new layer")
	f.StringArrayVar(&o.SSH, "ssh", nil, `SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	f.StringArrayVarP(&s.Tags, "tag", "t", nil, `Name and optionally a tag (format: "name:tag")`)
	f.StringVar(&s.Target, "target", "", "Set the target build stage to build")
	f.StringArrayVar(&l.Ulimits, "ulimit", nil, "Ulimit options (format: name=soft[:hard])")
	bindClassic(f)
}

// classic are the flags of Docker's former builder. Those with a reason are refused when they are used.
var classic = []struct{ name, kind, why string }{
	{"compress", "bool", ""}, // contexts travel by differences
	{"disable-content-trust", "bool", ""},
	{"force-rm", "bool", ""}, // nothing is left of a step that failed
	{"isolation", "string", "others than \"default\" exist on Windows only"},
	{"rm", "bool", ""},
	{"security-opt", "list", "a step has more rights only by its own \"RUN --security=insecure\" and \"--allow security.insecure\""},
}

func bindClassic(f *pflag.FlagSet) {
	for _, c := range classic {
		switch c.kind {
		case "bool":
			f.Bool(c.name, c.name == "rm", "")
		case "string":
			f.String(c.name, "", "")
		case "list":
			f.StringSlice(c.name, nil, "")
		}
		_ = f.MarkHidden(c.name)
	}
}

// Refused says which flag of Docker's former builder cannot be followed, and why.
func Refused(f *pflag.FlagSet) error {
	for _, c := range classic {
		v := f.Lookup(c.name).Value.String()
		if c.why != "" && f.Changed(c.name) && v != "false" && v != "default" && v != "" && v != "[]" {
			return errs.New(errs.Unsupported, "--%s: %s", c.name, c.why)
		}
	}
	if v, _ := f.GetBool("disable-content-trust"); !v && f.Changed("disable-content-trust") {
		return errs.New(errs.Unsupported, "--disable-content-trust=false: Docker Content Trust (Notary v1) no longer exists; name base images by digest to be sure of their content")
	}
	return nil
}

// set gives an environment variable's value as a list of one, or nil when it is not set.
func set(name string) []string {
	if v := os.Getenv(name); v != "" {
		return []string{v}
	}
	return nil
}
