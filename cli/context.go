package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/errs"
)

// contextRow is a context as `context ls` shows it.
type contextRow struct {
	client.Context
	current bool
	err     string
}

var contextList = format.List[contextRow]{
	Columns: []format.Column[contextRow]{
		{Name: "Name", Header: "NAME", Get: func(r contextRow) any { return r.Name }},
		{Name: "Description", Header: "DESCRIPTION", Get: func(r contextRow) any { return oneLine(r.Description) }},
		{Name: "DockerEndpoint", Header: "DOCKER ENDPOINT", Get: func(r contextRow) any { return r.Host }},
		{Name: "Current", Header: "CURRENT", Get: func(r contextRow) any { return r.current }},
		{Name: "Error", Header: "ERROR", Get: func(r contextRow) any { return r.err }},
		{Name: "ContextType", Header: "TYPE", Get: func(contextRow) any { return "" }},
		{Name: "shown", Header: "NAME", Get: func(r contextRow) any {
			if r.current {
				return r.Name + " *"
			}
			return r.Name
		}},
	},
	Table: []string{"shown", "Description", "DockerEndpoint", "Error"},
}

// contexts lists the default context and those of the store, and says which is in force.
func (a *App) contexts() ([]contextRow, error) {
	dir := a.configDir()
	stored, err := client.ListContexts(dir)
	if err != nil {
		return nil, err
	}
	current := "default"
	ep, resolveErr := client.Resolve(a.global)
	if ep.Context != "" {
		current = ep.Context
	}
	o := a.global
	o.Context = "default"
	def, err := client.Resolve(o)
	if err != nil {
		return nil, err
	}
	rows := []contextRow{{Context: client.Context{Name: "default", Host: def.Host, Description: "Current DOCKER_HOST based configuration"}, current: current == "default"}}
	for _, c := range stored {
		rows = append(rows, contextRow{Context: c, current: c.Name == current})
	}
	sortNatural(rows, func(r contextRow) string { return r.Name })
	if resolveErr != nil {
		a.warn("%v", resolveErr)
	}
	return rows, nil
}

func contextLsCommand(a *App) *cobra.Command {
	var f string
	var quiet bool
	cmd := &cobra.Command{Use: "ls [OPTIONS]", Args: count(0, 0), RunE: func(*cobra.Command, []string) error {
		rows, err := a.contexts()
		if err != nil {
			return err
		}
		if quiet {
			return ids(a, rows, func(r contextRow) string { return r.Name })
		}
		l := contextList
		if f != "" && f != "table" {
			l.Columns = l.Columns[:len(l.Columns)-1] // "shown" is for the default table only
		}
		if err := l.Write(a.Out, f, rows); err != nil {
			return err
		}
		if os.Getenv("DOCKER_HOST") != "" && format.IsTable(f) {
			a.warn("DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.")
		}
		return nil
	}}
	cmd.Flags().StringVar(&f, "format", "", formatHelp)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	return cmd
}

func contextUseCommand(a *App) *cobra.Command {
	return &cobra.Command{Use: "use CONTEXT", Args: count(1, 1), RunE: func(_ *cobra.Command, args []string) error {
		if err := client.UseContext(a.configDir(), args[0]); err != nil {
			return err
		}
		a.say(args[0])
		fmt.Fprintf(a.Err, "Current context is now %q\n", args[0])
		if os.Getenv("DOCKER_HOST") != "" {
			a.warn("DOCKER_HOST environment variable overrides the active context. To use %q, either set the global --context flag, or unset DOCKER_HOST environment variable.", args[0])
		}
		return nil
	}}
}

func contextShowCommand(a *App) *cobra.Command {
	return &cobra.Command{Use: "show", Args: count(0, 0), RunE: func(*cobra.Command, []string) error {
		ep, err := client.Resolve(a.global)
		if err != nil {
			return err
		}
		a.say(ep.Context)
		return nil
	}}
}

// inspectedContext is the form in which Docker's command line shows a context.
type inspectedContext struct {
	Name        string
	Metadata    map[string]string
	Endpoints   map[string]map[string]any
	TLSMaterial map[string][]string
	Storage     map[string]string
}

func contextInspectCommand(a *App) *cobra.Command {
	var f string
	cmd := &cobra.Command{Use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", Args: count(0, -1), RunE: func(cmd *cobra.Command, args []string) error {
		rows, err := a.contexts()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			for _, r := range rows {
				if r.current {
					args = []string{r.Name}
				}
			}
		}
		var shown []thing
		for _, name := range args {
			i := slices.IndexFunc(rows, func(r contextRow) bool { return r.Name == name })
			if i < 0 {
				return errs.New(errs.NotFound, "context %q does not exist; \"shoal context ls\" lists those that do", name)
			}
			v := describe(rows[i].Context)
			raw, err := json.Marshal(v)
			if err != nil {
				return err
			}
			shown = append(shown, thing{v, raw})
		}
		next := 0
		return a.inspect(cmd.Context(), args, f, func(context.Context, string) (thing, error) {
			next++
			return shown[next-1], nil
		})
	}}
	cmd.Flags().StringVarP(&f, "format", "f", "", valueFormatHelp)
	return cmd
}

func describe(c client.Context) inspectedContext {
	v := inspectedContext{Name: c.Name, Metadata: map[string]string{}, TLSMaterial: map[string][]string{},
		Endpoints: map[string]map[string]any{"docker": {"Host": c.Host, "SkipTLSVerify": c.SkipTLSVerify}},
		Storage:   map[string]string{"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}}
	if c.Description != "" && c.Name != "default" {
		v.Metadata["Description"] = c.Description
	}
	if c.TLSDir != "" {
		v.Storage["TLSPath"] = filepath.Dir(c.TLSDir)
		for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
			if _, err := os.Stat(filepath.Join(c.TLSDir, name)); err == nil {
				v.TLSMaterial["docker"] = append(v.TLSMaterial["docker"], name)
			}
		}
	}
	return v
}

func contextRmCommand(a *App) *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "rm CONTEXT [CONTEXT...]", Args: count(1, -1), RunE: func(_ *cobra.Command, args []string) error {
		dir := a.configDir()
		cfg, err := client.ReadConfig(dir)
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			if name == "default" {
				return badFlag("context \"default\" cannot be removed")
			}
			if name == cfg.CurrentContext {
				if !force {
					return errs.New(errs.Conflict, "context %q is in use, set -f flag to force remove", name)
				}
				if err := client.UseContext(dir, "default"); err != nil {
					return err
				}
			}
			if err := client.RemoveContext(dir, name); err != nil && (!force || !errs.Is(err, errs.NotFound)) {
				return err
			}
			a.say(name)
			return nil
		})
	}}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return cmd
}

// endpointFlags are --docker and --description of context create and update.
type endpointFlags struct {
	description string
	from        string
	docker      map[string]string
}

func (e *endpointFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&e.description, "description", "", "Description of the context")
	fs.StringToStringVar(&e.docker, "docker", nil, "set the docker endpoint")
}

// settle puts what --docker says over a context and reads the certificates it names.
func (e *endpointFlags) settle(a *App, c *client.Context) (map[string][]byte, error) {
	files := map[string][]byte{}
	read := func(name, path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return errs.Wrap(err, "read %s", name)
		}
		files[name] = data
		return nil
	}
	if from := e.docker["from"]; from != "" {
		if err := a.copyContext(from, c, files); err != nil {
			return nil, err
		}
	}
	for key, val := range e.docker {
		var err error
		switch key {
		case "host":
			c.Host = val
		case "ca":
			err = read("ca.pem", val)
		case "cert":
			err = read("cert.pem", val)
		case "key":
			err = read("key.pem", val)
		case "skip-tls-verify":
			if c.SkipTLSVerify, err = strconv.ParseBool(val); err != nil {
				err = badFlag("skip-tls-verify=%s: want true or false", val)
			}
		case "from":
		default:
			err = badFlag("unknown --docker setting %q: use host, ca, cert, key, skip-tls-verify or from", key)
		}
		if err != nil {
			return nil, err
		}
	}
	cert, key := files["cert.pem"], files["key.pem"]
	if (cert == nil) != (key == nil) {
		return nil, badFlag("a client certificate needs its key, and a key its certificate: give both, cert=FILE and key=FILE")
	}
	if cert != nil {
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			return nil, badFlag("cert=%s and key=%s do not belong together: %w", e.docker["cert"], e.docker["key"], err)
		}
	}
	return files, nil
}

// copyContext takes endpoint and certificates over from another context.
func (a *App) copyContext(from string, c *client.Context, files map[string][]byte) error {
	if from == "default" {
		o := a.global
		o.Context = "default"
		ep, err := client.Resolve(o)
		if err != nil {
			return err
		}
		c.Host, c.SkipTLSVerify = ep.Host, ep.TLS != nil && ep.TLS.InsecureSkipVerify
		for name, path := range map[string]string{"ca.pem": ep.Files.CA, "cert.pem": ep.Files.Cert, "key.pem": ep.Files.Key} {
			if path == "" {
				continue
			}
			if files[name], err = os.ReadFile(path); err != nil {
				return errs.Wrap(err, "read %s of the default context", name)
			}
		}
		return nil
	}
	other, err := client.LoadContext(a.configDir(), from)
	if err != nil {
		return err
	}
	c.Host, c.SkipTLSVerify = other.Host, other.SkipTLSVerify
	if c.Description == "" {
		c.Description = other.Description
	}
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		if other.TLSDir == "" {
			break
		}
		if data, err := os.ReadFile(filepath.Join(other.TLSDir, name)); err == nil {
			files[name] = data
		}
	}
	return nil
}

func contextCreateCommand(a *App) *cobra.Command {
	var e endpointFlags
	cmd := &cobra.Command{Use: "create [OPTIONS] CONTEXT", Args: count(1, 1), RunE: func(_ *cobra.Command, args []string) error {
		if _, err := client.LoadContext(a.configDir(), args[0]); err == nil {
			return errs.New(errs.Conflict, "context %q already exists", args[0])
		}
		c := client.Context{Name: args[0], Description: e.description}
		if e.from != "" {
			if e.docker != nil {
				return badFlag("cannot use --docker flag when --from is set")
			}
			e.docker = map[string]string{"from": e.from}
		}
		files, err := e.settle(a, &c)
		if err != nil {
			return err
		}
		if c.Host == "" {
			return badFlag("docker endpoint configuration is required: give --docker host=HOST, or --from CONTEXT")
		}
		if err := client.SaveContext(a.configDir(), c, files); err != nil {
			return err
		}
		a.say(args[0])
		fmt.Fprintf(a.Err, "Successfully created context %q\n", args[0])
		return nil
	}}
	cmd.Example = `  shoal context create my-context --description "some description" --docker "host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file"`
	e.add(cmd.Flags())
	cmd.Flags().StringVar(&e.from, "from", "", "create context from a named context")
	return cmd
}

func contextUpdateCommand(a *App) *cobra.Command {
	var e endpointFlags
	cmd := &cobra.Command{Use: "update [OPTIONS] CONTEXT", Args: count(1, 1)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := client.LoadContext(a.configDir(), args[0])
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("description") {
			c.Description = e.description
		}
		files, err := e.settle(a, &c)
		if err != nil {
			return err
		}
		if err := client.SaveContext(a.configDir(), c, files); err != nil {
			return err
		}
		a.say(args[0])
		fmt.Fprintf(a.Err, "Successfully updated context %q\n", args[0])
		return nil
	}
	e.add(cmd.Flags())
	return cmd
}
