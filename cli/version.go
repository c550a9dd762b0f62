package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/moby/moby/api/types/system"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/version"
)

// clientVersion and serverVersion are what templates of `version` see; the names are Docker's.
type clientVersion struct {
	Platform          *platformName `json:"Platform,omitempty"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string `json:",omitempty"`
	Context           string
}

type platformName struct{ Name string }

type serverVersion struct {
	Platform      platformName              `json:"Platform"`
	Components    []system.ComponentVersion `json:",omitempty"`
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string `json:",omitempty"`
	GitCommit     string
	GoVersion     string
	Os            string
	Arch          string
	KernelVersion string `json:",omitempty"`
	Experimental  bool   `json:",omitempty"`
	BuildTime     string `json:",omitempty"`
}

type bothVersions struct {
	Client clientVersion
	Server *serverVersion
}

// ServerOK is {{.ServerOK}}.
func (v bothVersions) ServerOK() bool { return v.Server != nil }

func versionCommand(a *App) *cobra.Command {
	var f string
	var clientOnly bool
	cmd := &cobra.Command{Use: "version [OPTIONS]", Args: count(0, 0)}
	cmd.Flags().StringVarP(&f, "format", "f", "", valueFormatHelp)
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Show the client's version only; no engine is asked")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := bothVersions{Client: clientVersion{Version: version.Version, APIVersion: moby.MaxAPIVersion,
			DefaultAPIVersion: moby.MaxAPIVersion, GitCommit: version.GitCommit, GoVersion: version.Go(),
			Os: runtime.GOOS, Arch: runtime.GOARCH, BuildTime: version.BuildTime, Context: "default"}}
		var failure error
		if !clientOnly {
			api, err := a.API()
			if err != nil {
				return err
			}
			v.Client.Context = api.Endpoint().Context
			v.Server, failure = askVersion(cmd.Context(), api)
			v.Client.APIVersion = api.ClientVersion()
		}
		if f != "" {
			if err := format.Value(a.Out, f, v, nil); err != nil {
				return cmp.Or(failure, err)
			}
			return failure
		}
		if err := showVersion(a.Out, v); err != nil {
			return err
		}
		return failure
	}
	return cmd
}

func askVersion(ctx context.Context, api *client.Client) (*serverVersion, error) {
	r, err := api.ServerVersion(ctx, moby.ServerVersionOptions{})
	if err != nil {
		return nil, err
	}
	s := &serverVersion{Platform: platformName{r.Platform.Name}, Components: r.Components, Version: r.Version,
		APIVersion: r.APIVersion, MinAPIVersion: r.MinAPIVersion, Os: r.Os, Arch: r.Arch, Experimental: r.Experimental}
	// The details stand with the component that is the engine, the first.
	if len(r.Components) > 0 {
		d := r.Components[0].Details
		s.GitCommit, s.GoVersion, s.KernelVersion, s.BuildTime = d["GitCommit"], d["GoVersion"], d["KernelVersion"], d["BuildTime"]
	}
	return s, nil
}

func showVersion(out io.Writer, v bothVersions) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 1, 1, ' ', 0)
	line := func(key, val string) {
		if val != "" {
			fmt.Fprintf(w, " %s:\t%s\n", key, val)
		}
	}
	c := v.Client
	fmt.Fprintln(w, "Client: Shoal")
	line("Version", c.Version)
	api := c.APIVersion
	if api != c.DefaultAPIVersion {
		api += " (downgraded from " + c.DefaultAPIVersion + ")"
	}
	line("API version", api)
	line("Go version", c.GoVersion)
	line("Git commit", c.GitCommit)
	line("Built", longDate(c.BuildTime))
	line("OS/Arch", c.Os+"/"+c.Arch)
	line("Context", c.Context)
	if s := v.Server; s != nil {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace("Server: "+s.Platform.Name))
		parts := s.Components
		if len(parts) == 0 {
			parts = []system.ComponentVersion{{Name: "Engine", Version: s.Version, Details: map[string]string{
				"ApiVersion": s.APIVersion, "Os": s.Os, "Arch": s.Arch, "GitCommit": s.GitCommit, "GoVersion": s.GoVersion}}}
		}
		for i, p := range parts {
			fmt.Fprintf(w, " %s:\n", p.Name)
			line(" Version", p.Version)
			if i > 0 {
				for _, k := range slices.Sorted(maps.Keys(p.Details)) {
					line(" "+k, p.Details[k])
				}
				continue
			}
			d := p.Details
			min := ""
			if m := d["MinAPIVersion"]; m != "" {
				min = " (minimum version " + m + ")"
			}
			line(" API version", d["ApiVersion"]+min)
			line(" Go version", d["GoVersion"])
			line(" Git commit", d["GitCommit"])
			line(" Built", longDate(d["BuildTime"]))
			line(" OS/Arch", d["Os"]+"/"+d["Arch"])
			line(" Experimental", d["Experimental"])
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := out.Write(b.Bytes())
	return err
}

func longDate(s string) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.ANSIC)
	}
	return s
}
