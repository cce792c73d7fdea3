package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/coreos/flannel/cni/install"
)

var installCNICommand = command{
	name: "install-cni", summary: "install flannel's CNI plugin, and those that a pod needs beside it",
	detail: "The plugin flannel is a copy of the program. The plugins bridge, host-local, loopback and portmap are links to a second\n" +
		"copy, flannel-plugins, where CNI's folder does not have them already.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		program := fs.String("program", "", "`file` to install; empty: this program, which has the plugins as well as the daemon")
		dir := fs.String("bin-dir", "/opt/cni/bin", "`folder` in which the container engine looks for CNI plugins")
		return func(context.Context, []string) error {
			var err error
			if *program == "" {
				*program, err = os.Executable()
			}
			var done []string
			if err == nil {
				done, err = install.Plugins(*program, *dir)
			}
			if err != nil {
				return fmt.Errorf("install the CNI plugins in %s: %w", *dir, err)
			}
			if len(done) == 0 {
				_, err = fmt.Fprintf(p.Stdout, "%s is current\n", *dir)
			} else {
				_, err = fmt.Fprintf(p.Stdout, "installed in %s: %s\n", *dir, strings.Join(done, ", "))
			}
			return err
		}
	},
}
