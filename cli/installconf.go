package cli

import (
	"context"
	"flag"

	"github.com/coreos/flannel/cni/install"
)

var installConfCommand = command{
	name: "install-conf", args: "SOURCE DESTINATION", summary: "copy a file, so that a reader sees all of it or none",
	detail: "The copy has the mode of SOURCE. If DESTINATION is a folder, the copy has SOURCE's name in it. The program's names\n" +
		"install-conf and cp run this command: manifests of Kubernetes call them in flannel's image.",
	prepare: func(_ *Program, fs *flag.FlagSet) action {
		fs.Bool("f", true, "replace DESTINATION; cp has this flag")
		return func(_ context.Context, args []string) error {
			if len(args) != 2 {
				return flag.ErrHelp
			}
			_, err := install.File(args[0], args[1])
			return err
		}
	},
}
