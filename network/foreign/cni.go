package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
)

// CNI runs CNI plug-ins as the specification says: https://www.cni.dev/docs/spec/ (versions 0.3.0 to 1.1.0).
type CNI struct {
	Bin  []string      // directories of the plug-ins; empty: where distributions put them
	Conf string        // directory of the configurations; "": /etc/cni/net.d
	Each time.Duration // that one plug-in may take; 0: 30 s
}

// OptCNIConfig is the option that names a network's configuration: a network, or a file, of the configuration directory;
// without it, it is the one with the network's own name.
const OptCNIConfig = "config"

// cniList is a configuration as it is used, one plug-in after the other.
type cniList struct {
	Version      string                       `json:"cniVersion"`
	Name         string                       `json:"name"`
	DisableCheck bool                         `json:"disableCheck,omitempty"`
	Plugins      []map[string]json.RawMessage `json:"plugins"`
}

// cniMemo is what an endpoint is taken away by: the configuration may have changed meanwhile.
type cniMemo struct {
	List   cniList         `json:"list"`
	Result json.RawMessage `json:"result,omitempty"`
}

func (c *CNI) bin() []string {
	if len(c.Bin) > 0 {
		return c.Bin
	}
	return []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}
}

func (c *CNI) conf() string {
	if c.Conf != "" {
		return c.Conf
	}
	return "/etc/cni/net.d"
}

// CreateNetwork only looks whether the configuration can be used: CNI makes networks with their first endpoint.
func (c *CNI) CreateNetwork(_ context.Context, n model.Network) error {
	l, err := c.load(n)
	if err != nil {
		return err
	}
	for _, p := range l.Plugins {
		if _, err := c.program(text(p["type"])); err != nil {
			return err
		}
	}
	return nil
}

// RemoveNetwork has nothing to do.
func (c *CNI) RemoveNetwork(context.Context, model.Network) error { return nil }

// load finds and reads a network's configuration.
func (c *CNI) load(n model.Network) (cniList, error) {
	ref := n.Options[OptCNIConfig]
	if ref == "" {
		ref = n.Name
	}
	if filepath.IsAbs(ref) {
		// What a configuration says is done as root on the host; a client with less than all rights may not bring its own.
		if filepath.Dir(filepath.Clean(ref)) != filepath.Clean(c.conf()) {
			return cniList{}, errs.New(errs.Forbidden, "CNI configuration %s is not in %s; put it there, or start the daemon with --cni-conf-dir", ref, c.conf())
		}
		return readCNI(ref)
	}
	files, err := os.ReadDir(c.conf())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cniList{}, errs.Wrap(err, "CNI configurations")
	}
	var seen []string
	var broken error
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != ".conf" && ext != ".conflist" && ext != ".json" {
			continue
		}
		l, err := readCNI(filepath.Join(c.conf(), f.Name()))
		if err == nil && l.Name == ref {
			return l, nil
		}
		seen = append(seen, l.Name)
		broken = errors.Join(broken, err)
	}
	seen = slices.DeleteFunc(seen, func(s string) bool { return s == "" })
	err = errs.New(errs.NotFound, "there is no CNI configuration of a network %q in %s (there is: %s); put one there, or name another of them by -o %s=NAME", ref, c.conf(), strings.Join(seen, ", "), OptCNIConfig)
	if broken != nil {
		err = errs.New(errs.NotFound, "%w; files that cannot be used: %w", err, broken)
	}
	return cniList{}, err
}

func readCNI(path string) (l cniList, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return l, errs.Wrap(err, "CNI configuration")
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, errs.New(errs.Invalid, "CNI configuration %s: %w", path, err)
	}
	if l.Plugins == nil { // one plug-in, not a list
		var one map[string]json.RawMessage
		if err := json.Unmarshal(b, &one); err != nil || one["type"] == nil {
			return l, errs.New(errs.Invalid, "CNI configuration %s has neither plugins nor a type", path)
		}
		l.Plugins = []map[string]json.RawMessage{one}
	}
	if l.Name == "" || len(l.Plugins) == 0 {
		return l, errs.New(errs.Invalid, "CNI configuration %s needs a name and a plug-in", path)
	}
	if !slices.Contains([]string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}, l.Version) {
		return l, errs.New(errs.Unsupported, "CNI configuration %s has the cniVersion %q; want one from 0.3.0 to 1.1.0", path, l.Version)
	}
	return l, nil
}

// program finds a plug-in. Its type is a name, never a path.
func (c *CNI) program(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, '/') || name == "." || name == ".." {
		return "", errs.New(errs.Invalid, "CNI plug-in type %q: want the name of a program in %s", name, strings.Join(c.bin(), ", "))
	}
	for _, dir := range c.bin() {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errs.New(errs.NotFound, "CNI plug-in %q is in none of %s; install it (Debian: containernetworking-plugins), or tell where it is by --cni-bin-dir", name, strings.Join(c.bin(), ", "))
}

// Connect adds the container to the network, one plug-in after the other.
func (c *CNI) Connect(ctx context.Context, e Endpoint) (made Made, err error) {
	l, err := c.load(e.Net)
	if err != nil {
		return made, err
	}
	memo := cniMemo{List: l}
	var u undo.Stack
	defer u.Run()
	u.Add(func() { c.del(context.WithoutCancel(ctx), e, memo) })
	for _, p := range l.Plugins {
		out, err := c.run(ctx, "ADD", e, memo, p)
		if err != nil {
			return made, err
		}
		memo.Result = out
	}
	if made, err = readCNIResult(memo.Result, e.Interface); err != nil {
		return made, errs.Wrap(err, "CNI network %s", l.Name)
	}
	if made.Memo, err = json.Marshal(memo); err != nil {
		return made, err
	}
	u.Release()
	return made, nil
}

// Disconnect implements Driver. A container that never got through Connect is taken away by the present configuration.
func (c *CNI) Disconnect(ctx context.Context, e Endpoint) error {
	var memo cniMemo
	if len(e.Memo) == 0 {
		l, err := c.load(e.Net)
		if err != nil {
			return err
		}
		memo.List = l
	} else if err := json.Unmarshal(e.Memo, &memo); err != nil {
		return errs.New(errs.Damaged, "memory of a CNI endpoint: %w", err)
	}
	return c.del(ctx, e, memo)
}

// del goes on after a plug-in that fails: the others have things to remove too.
func (c *CNI) del(ctx context.Context, e Endpoint, memo cniMemo) (failed error) {
	for _, p := range slices.Backward(memo.List.Plugins) {
		_, err := c.run(ctx, "DEL", e, memo, p)
		failed = errors.Join(failed, err)
	}
	return failed
}

// Check implements Driver.
func (c *CNI) Check(ctx context.Context, e Endpoint) error {
	var memo cniMemo
	if err := json.Unmarshal(e.Memo, &memo); err != nil {
		return errs.New(errs.Damaged, "memory of a CNI endpoint: %w", err)
	}
	if memo.List.DisableCheck || strings.HasPrefix(memo.List.Version, "0.3.") {
		return nil
	}
	for _, p := range memo.List.Plugins {
		if _, err := c.run(ctx, "CHECK", e, memo, p); err != nil {
			return err
		}
	}
	return nil
}

// stdin is a plug-in's own configuration for one call.
func (c *CNI) stdin(command string, e Endpoint, memo cniMemo, p map[string]json.RawMessage) ([]byte, error) {
	conf := map[string]any{}
	for k, v := range p {
		if k != "capabilities" {
			conf[k] = v
		}
	}
	conf["name"], conf["cniVersion"] = memo.List.Name, memo.List.Version
	if memo.Result != nil && (command == "ADD" || !strings.HasPrefix(memo.List.Version, "0.3.")) {
		conf["prevResult"] = memo.Result
	}
	var caps map[string]bool
	json.Unmarshal(p["capabilities"], &caps)
	run := map[string]any{}
	if caps["mac"] && !e.Spec.MAC.IsZero() {
		run["mac"] = e.Spec.MAC.String()
	}
	if ips := wantedIPs(e); caps["ips"] && len(ips) > 0 {
		run["ips"] = ips
	}
	if caps["aliases"] && len(e.DNSNames) > 0 {
		run["aliases"] = map[string][]string{memo.List.Name: e.DNSNames}
	}
	if len(run) > 0 {
		conf["runtimeConfig"] = run
	}
	return json.Marshal(conf)
}

func wantedIPs(e Endpoint) (out []string) {
	for _, a := range []netip.Addr{e.Spec.IPv4, e.Spec.IPv6} {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return out
}

// cniError is what a plug-in says when it fails.
type cniError struct {
	Code    int    `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details"`
}

func (c *CNI) run(ctx context.Context, command string, e Endpoint, memo cniMemo, p map[string]json.RawMessage) (json.RawMessage, error) {
	name := text(p["type"])
	path, err := c.program(name)
	if err != nil {
		return nil, err
	}
	in, err := c.stdin(command, e, memo, p)
	if err != nil {
		return nil, err
	}
	limit := c.Each
	if limit == 0 {
		limit = 30 * time.Second
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := "IgnoreUnknown=1"
	if ips := wantedIPs(e); len(ips) > 0 {
		args += ";IP=" + ips[0]
	}
	if !e.Spec.MAC.IsZero() {
		args += ";MAC=" + e.Spec.MAC.String()
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + command, "CNI_CONTAINERID=" + e.ContainerID, "CNI_NETNS=" + e.Namespace,
		"CNI_IFNAME=" + e.Interface, "CNI_ARGS=" + args, "CNI_PATH=" + strings.Join(c.bin(), ":")}
	cmd.Stdin = bytes.NewReader(in)
	out, complaint := &limited{max: 1 << 20}, &limited{max: 16 << 10}
	cmd.Stdout, cmd.Stderr = out, complaint
	// It may start others, such as the IPAM plug-in: all of them end when the time is over.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if err == nil {
		return json.RawMessage(out.b), nil
	}
	what := fmt.Sprintf("CNI plug-in %s: %s for network %s", name, command, memo.List.Name)
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, errs.New(errs.Canceled, "%s: %w", what, ctx.Err())
		}
		return nil, errs.New(errs.Unavailable, "%s has not ended within %s and was killed; see whether what it needs runs", what, time.Since(began).Round(time.Millisecond))
	}
	var said cniError
	if json.Unmarshal(out.b, &said) == nil && said.Msg != "" {
		return nil, errs.New(errs.Unavailable, "%s: %s", what, strings.TrimSuffix(strings.TrimSpace(said.Msg+"; "+said.Details), ";"))
	}
	return nil, errs.New(errs.Unavailable, "%s: %w: %s", what, err, strings.TrimSpace(string(complaint.b)+" "+string(out.b)))
}

// limited keeps the beginning of what is written.
type limited struct {
	b   []byte
	max int
}

func (l *limited) Write(b []byte) (int, error) {
	l.b = append(l.b, b[:min(len(b), l.max-len(l.b))]...)
	return len(b), nil
}

// readCNIResult takes what concerns the container's interface out of a result.
func readCNIResult(b json.RawMessage, inside string) (m Made, err error) {
	var r struct {
		Interfaces []struct{ Name, Mac, Sandbox string }
		IPs        []struct {
			Address   netip.Prefix
			Gateway   *netip.Addr
			Interface *int
		}
		Routes []struct {
			Dst netip.Prefix
			GW  *netip.Addr
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return m, errs.New(errs.Unavailable, "the result cannot be read: %w", err)
	}
	own := func(i *int) bool {
		return i == nil || *i >= 0 && *i < len(r.Interfaces) && r.Interfaces[*i].Name == inside && r.Interfaces[*i].Sandbox != ""
	}
	for _, i := range r.Interfaces {
		if i.Name == inside && i.Sandbox != "" && i.Mac != "" {
			if m.MAC, err = model.ParseMAC(i.Mac); err != nil {
				return m, err
			}
		}
	}
	var gw4, gw6 netip.Addr
	for _, ip := range r.IPs {
		to, gw := &m.V4, &gw4
		if ip.Address.Addr().Is6() {
			to, gw = &m.V6, &gw6
		}
		if !own(ip.Interface) || to.IsValid() {
			continue
		}
		if *to = ip.Address; ip.Gateway != nil {
			*gw = *ip.Gateway
		}
	}
	for _, route := range r.Routes {
		if route.Dst.Bits() != 0 {
			continue
		}
		to, gw := &m.GW4, gw4
		if route.Dst.Addr().Is6() {
			to, gw = &m.GW6, gw6
		}
		if route.GW != nil {
			gw = *route.GW
		}
		*to = gw
	}
	return m, nil
}

func text(b json.RawMessage) (s string) {
	json.Unmarshal(b, &s)
	return s
}
