package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalhq/shoal/lib/errs"
)

// registryServeCommand becomes `shoald registry serve`: a registry is large, and the command line must stay small. The
// options are declared here for their help and completion; shoald gives them their defaults.
func registryServeCommand(*App) *cobra.Command {
	cmd := &cobra.Command{Use: "serve [OPTIONS]", Args: count(0, 0)}
	cmd.Long = "Serve a container registry (OCI distribution specification 1.1) in the foreground.\n" +
		"It listens on 127.0.0.1:5000 and keeps its images in /var/lib/shoal-registry unless told otherwise."
	fs := cmd.Flags()
	fs.StringP("listen", "l", "", "Address to serve (HOST:PORT)")
	fs.String("root", "", "Where the images are kept")
	fs.String("users", "", "File of names and bcrypt passwords, as htpasswd -B writes it")
	fs.String("tls-cert", "", "Certificate in PEM form")
	fs.String("tls-key", "", "Key in PEM form")
	fs.String("proxy", "", "Registry to stand before as a pull-through cache: docker.io, HOST[:PORT]")
	fs.StringArray("insecure-registry", nil, "Upstream that may be spoken to without a valid certificate")
	fs.Bool("read-only", false, "Refuse pushes and deletes")
	fs.Bool("anonymous", false, "Let everybody push, on a network too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, err := daemonBinary()
		if err != nil {
			return err
		}
		argv := []string{"shoald", "registry", "serve"}
		cmd.Flags().Visit(func(f *pflag.Flag) {
			if list, ok := f.Value.(pflag.SliceValue); ok {
				for _, v := range list.GetSlice() {
					argv = append(argv, "--"+f.Name+"="+v)
				}
				return
			}
			argv = append(argv, "--"+f.Name+"="+f.Value.String())
		})
		return errs.Wrap(syscall.Exec(path, argv, os.Environ()), "start %s", path)
	}
	return cmd
}

// daemonBinary finds shoald beside this program, or in the PATH.
func daemonBinary() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "shoald")
		if st, err := os.Stat(beside); err == nil && !st.IsDir() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("shoald")
	if err != nil {
		return "", errs.New(errs.NotFound, "shoald is neither beside shoal nor in PATH; install the three binaries together")
	}
	return filepath.Abs(path)
}
