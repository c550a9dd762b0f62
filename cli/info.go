package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/version"
)

// clientInfo is the client's half of `info`.
type clientInfo struct {
	Debug    bool
	Version  string
	Context  string
	Plugins  []string
	Warnings []string
}

// wholeInfo is what templates of `info` see.
type wholeInfo struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string `json:",omitempty"`
	ClientInfo   clientInfo
}

func infoCommand(a *App) *cobra.Command {
	var f string
	cmd := a.command("info [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		res, failure := api.Info(ctx, moby.InfoOptions{})
		w := wholeInfo{ClientInfo: clientInfo{Debug: a.debug, Version: version.Version, Context: api.Endpoint().Context, Plugins: []string{}}}
		if failure != nil {
			w.ServerErrors = []string{a.explain(failure).Error()}
		} else {
			w.Info = &res.Info
		}
		if f != "" {
			raw, err := json.Marshal(w)
			if err != nil {
				return err
			}
			return cmp.Or(format.Value(a.Out, f, w, raw), failure)
		}
		fmt.Fprintf(a.Out, "Client: Shoal\n Version:    %s\n Context:    %s\n Debug Mode: %t\n\nServer:\n", w.ClientInfo.Version, w.ClientInfo.Context, a.debug)
		if failure != nil {
			return failure
		}
		var b bytes.Buffer
		showInfo(&b, w.Info, a.debug)
		if _, err := a.Out.Write(b.Bytes()); err != nil {
			return err
		}
		for _, warning := range w.Warnings {
			fmt.Fprintln(a.Err, warning)
		}
		return nil
	})
	cmd.Flags().StringVarP(&f, "format", "f", "", valueFormatHelp)
	return cmd
}

// infoWriter writes "key: value" lines at an indentation.
type infoWriter struct{ io.Writer }

func (w infoWriter) line(indent int, key, val string) {
	fmt.Fprintf(w, "%s%s: %s\n", strings.Repeat(" ", indent), key, val)
}

// some writes the line if there is a value.
func (w infoWriter) some(indent int, key, val string) {
	if val != "" {
		w.line(indent, key, val)
	}
}

// list writes a heading and a line for each entry, if there is any.
func (w infoWriter) list(heading string, entries []string) {
	if len(entries) == 0 {
		return
	}
	fmt.Fprintf(w, " %s:\n", heading)
	for _, e := range entries {
		fmt.Fprintf(w, "  %s\n", e)
	}
}

func showInfo(out io.Writer, i *system.Info, debug bool) {
	w := infoWriter{out}
	w.line(1, "Containers", strconv.Itoa(i.Containers))
	w.line(2, "Running", strconv.Itoa(i.ContainersRunning))
	w.line(2, "Paused", strconv.Itoa(i.ContainersPaused))
	w.line(2, "Stopped", strconv.Itoa(i.ContainersStopped))
	w.line(1, "Images", strconv.Itoa(i.Images))
	w.some(1, "Server Version", i.ServerVersion)
	w.some(1, "Storage Driver", i.Driver)
	for _, p := range i.DriverStatus {
		w.line(2, p[0], p[1])
	}
	w.some(1, "Logging Driver", i.LoggingDriver)
	w.some(1, "Cgroup Driver", i.CgroupDriver)
	w.some(1, "Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(w, " Plugins:")
	w.line(2, "Volume", strings.Join(i.Plugins.Volume, " "))
	w.line(2, "Network", strings.Join(i.Plugins.Network, " "))
	w.some(2, "Authorization", strings.Join(i.Plugins.Authorization, " "))
	w.line(2, "Log", strings.Join(i.Plugins.Log, " "))
	w.list("CDI spec directories", i.CDISpecDirs)
	var devices []string
	for _, d := range i.DiscoveredDevices {
		devices = append(devices, d.Source+": "+d.ID)
	}
	w.list("Discovered Devices", devices)
	w.line(1, "Swarm", string(i.Swarm.LocalNodeState))
	if i.Swarm.NodeID != "" {
		w.line(2, "NodeID", i.Swarm.NodeID)
		w.some(2, "Error", i.Swarm.Error)
		w.line(2, "Is Manager", strconv.FormatBool(i.Swarm.ControlAvailable))
		w.some(2, "Node Address", i.Swarm.NodeAddr)
	}
	if len(i.Runtimes) > 0 {
		w.line(1, "Runtimes", strings.Join(slices.Sorted(maps.Keys(i.Runtimes)), " "))
		w.line(1, "Default Runtime", i.DefaultRuntime)
	}
	if i.OSType == "linux" {
		w.some(1, "Init Binary", i.InitBinary)
		w.some(1, "containerd version", i.ContainerdCommit.ID)
		w.some(1, "runc version", i.RuncCommit.ID)
		w.some(1, "init version", i.InitCommit.ID)
		w.list("Security Options", securityLines(i.SecurityOptions))
	}
	w.some(1, "Kernel Version", i.KernelVersion)
	w.some(1, "Operating System", i.OperatingSystem)
	w.some(1, "OSType", i.OSType)
	w.some(1, "Architecture", i.Architecture)
	w.line(1, "CPUs", strconv.Itoa(i.NCPU))
	w.line(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	w.some(1, "Name", i.Name)
	w.some(1, "ID", i.ID)
	showInfoPolicy(w, i, debug)
}

// showInfoPolicy writes the second half: how the daemon is set up.
func showInfoPolicy(w infoWriter, i *system.Info, debug bool) {
	w.line(1, "Docker Root Dir", i.DockerRootDir)
	w.line(1, "Debug Mode", strconv.FormatBool(i.Debug))
	if i.Debug || debug {
		w.line(2, "File Descriptors", strconv.Itoa(i.NFd))
		w.line(2, "Goroutines", strconv.Itoa(i.NGoroutines))
		w.line(2, "System Time", i.SystemTime)
		w.line(2, "EventsListeners", strconv.Itoa(i.NEventsListener))
	}
	w.some(1, "HTTP Proxy", i.HTTPProxy)
	w.some(1, "HTTPS Proxy", i.HTTPSProxy)
	w.some(1, "No Proxy", i.NoProxy)
	w.list("Labels", i.Labels)
	w.line(1, "Experimental", strconv.FormatBool(i.ExperimentalBuild))
	if r := i.RegistryConfig; r != nil {
		var insecure []string
		for _, name := range slices.Sorted(maps.Keys(r.IndexConfigs)) {
			if c := r.IndexConfigs[name]; c != nil && !c.Secure {
				insecure = append(insecure, c.Name)
			}
		}
		for _, cidr := range r.InsecureRegistryCIDRs {
			insecure = append(insecure, cidr.String())
		}
		w.list("Insecure Registries", insecure)
		w.list("Registry Mirrors", r.Mirrors)
	}
	w.line(1, "Live Restore Enabled", strconv.FormatBool(i.LiveRestoreEnabled))
	w.some(1, "Product License", i.ProductLicense)
	var pools []string
	for _, p := range i.DefaultAddressPools {
		pools = append(pools, fmt.Sprintf(" Base: %s, Size: %d", p.Base, p.Size))
	}
	w.list("Default Address Pools", pools)
	if b := i.FirewallBackend; b != nil {
		w.line(1, "Firewall Backend", b.Driver)
		for _, p := range b.Info {
			w.line(2, p[0], p[1])
		}
	}
	fmt.Fprintln(w)
}

// securityLines turns "name=seccomp,profile=builtin" into lines.
func securityLines(options []string) []string {
	var out []string
	for _, o := range options {
		for i, kv := range strings.Split(o, ",") {
			key, val, ok := strings.Cut(kv, "=")
			switch {
			case !ok:
				out = append(out, key)
			case i == 0 && key == "name":
				out = append(out, val)
			case key == "profile":
				out = append(out, " Profile: "+val)
			}
		}
	}
	return out
}
