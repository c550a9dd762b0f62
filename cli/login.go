package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/cli/cli/config/types"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/lib/errs"
)

// registryName is the name under which the credentials of a registry are kept.
func registryName(args []string) string {
	if len(args) == 0 || args[0] == "" || args[0] == "docker.io" || args[0] == "index.docker.io" || args[0] == "registry-1.docker.io" {
		return hubIndex
	}
	host := strings.TrimPrefix(strings.TrimPrefix(args[0], "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	return host
}

type loginFlags struct {
	user, password string
	stdin          bool
}

func loginCommand(a *App) *cobra.Command {
	var l loginFlags
	cmd := a.command("login [OPTIONS] [SERVER]", count(0, 1), func(ctx context.Context, api *client.Client, args []string) error {
		server := registryName(args)
		if l.user == "" && l.password == "" && !l.stdin && a.loginAgain(ctx, api, server) {
			return nil
		}
		if err := l.ask(a, server); err != nil {
			return err
		}
		res, err := api.RegistryLogin(ctx, moby.RegistryLoginOptions{Username: l.user, Password: l.password, ServerAddress: server})
		if err != nil {
			return err
		}
		c, err := a.credentials()
		if err != nil {
			return err
		}
		auth := types.AuthConfig{Username: l.user, Password: l.password, ServerAddress: server}
		if t := res.Auth.IdentityToken; t != "" {
			auth.Password, auth.IdentityToken = "", t
		}
		if err := c.GetCredentialsStore(server).Store(auth); err != nil {
			return errs.Wrap(err, "save the credentials for %s", server)
		}
		if c.CredentialsStore == "" && c.CredentialHelpers[server] == "" {
			a.warn("Your credentials are stored unencrypted in '%s'. Configure a credential helper (credsStore) to remove this warning.", c.Filename)
		}
		status := res.Auth.Status
		if status == "" {
			status = "Login Succeeded"
		}
		a.say(status)
		return nil
	})
	cmd.Long = "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified."
	fs := cmd.Flags()
	fs.StringVarP(&l.user, "username", "u", "", "Username")
	fs.StringVarP(&l.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	fs.BoolVar(&l.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

// loginAgain tries the credentials that are kept for a registry, as docker does before it asks for others.
func (a *App) loginAgain(ctx context.Context, api *client.Client, server string) bool {
	c, err := a.credentials()
	if err != nil {
		return false
	}
	had, err := c.GetAuthConfig(server)
	if err != nil || had.Username == "" || had.Password == "" && had.IdentityToken == "" {
		return false
	}
	fmt.Fprintf(a.Err, "Authenticating with existing credentials... [Username: %s]\n", had.Username)
	if _, err := api.RegistryLogin(ctx, moby.RegistryLoginOptions{Username: had.Username, Password: had.Password, IdentityToken: had.IdentityToken, ServerAddress: server}); err != nil {
		fmt.Fprintf(a.Err, "They are not accepted any more: %v\n", a.explain(err))
		return false
	}
	a.say("Login Succeeded")
	return true
}

// ask gets the name and password that were not given: the password never from the command line without a warning.
func (l *loginFlags) ask(a *App, server string) error {
	if l.password != "" {
		a.warn("Using --password via the CLI is insecure. Use --password-stdin.")
		if l.stdin {
			return badFlag("conflicting options: cannot specify both --password and --password-stdin")
		}
	}
	if l.stdin {
		if l.user == "" {
			return badFlag("the --password-stdin option requires --username to be set")
		}
		data, err := io.ReadAll(io.LimitReader(a.In, 1<<20))
		if err != nil {
			return err
		}
		l.password = strings.TrimRight(string(data), "\r\n")
	}
	if l.user != "" && l.password != "" {
		return nil
	}
	in, ok := a.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return badFlag("cannot ask for a name and password without a terminal: give --username and --password-stdin")
	}
	if l.user == "" {
		fmt.Fprintf(a.Out, "Username for %s: ", server)
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			return err
		}
		if l.user = strings.TrimSpace(line); l.user == "" {
			return badFlag("username is required")
		}
	}
	if l.password == "" {
		fmt.Fprint(a.Out, "Password: ")
		data, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.Out)
		if err != nil {
			return err
		}
		if l.password = string(data); l.password == "" {
			return badFlag("password is required")
		}
	}
	return nil
}

func logoutCommand(a *App) *cobra.Command {
	return &cobra.Command{Use: "logout [SERVER]", Args: count(0, 1), RunE: func(_ *cobra.Command, args []string) error {
		server := registryName(args)
		c, err := a.credentials()
		if err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "Removing login credentials for %s\n", server)
		return errs.Wrap(c.GetCredentialsStore(server).Erase(server), "remove the credentials for %s", server)
	}}
}
