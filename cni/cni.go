// Package cni is the CNI plugin "flannel". A container engine runs it for each
// attachment of a container to the network:
//
//	engine ─► flannel ─► delegate, normally bridge ─► host-local
//	            │
//	            ├─ subnet.env: what the daemon gives this host
//	            └─ /var/lib/cni/flannel: the delegate's configuration, until DEL has succeeded
//
// Terms and commands are those of the CNI specification 1.1.0. An attachment is a
// container and the name of its interface. The delegate is the plugin that does
// the work; flannel makes its configuration.
//
// A configuration and its files have the form of flannel-io/cni-plugin, so that
// either program deletes what the other has added.
package cni

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/coreos/flannel/cni/bundled"
)

// Name is the plugin's name, which is that of its program.
const Name = "flannel"

// IsPlugin reports whether a program of this name or path is to run as a plugin.
// The name flannel is the daemon's as well: then it is a plugin if it has a command
// in the environment.
func IsPlugin(program string) bool {
	return bundled.Find(program) != nil || filepath.Base(program) == Name && os.Getenv("CNI_COMMAND") != ""
}

// Run runs the plugin that a program of this name or path is, for the command in the
// environment, and returns the exit code. The plugin is flannel if no bundled one
// has the name. Without a command it prints a description to standard error.
func Run(ctx context.Context, program string) int {
	if p := bundled.Find(program); p != nil {
		return exitCode(p.Run())
	}
	return exitCode(run(ctx))
}

// run runs the plugin flannel. A delegate may run in the same thread, and needs its
// network namespace.
func run(ctx context.Context) *types.Error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	bind := func(f func(context.Context, *skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error { return f(ctx, args) }
	}
	return skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: bind(add), Del: bind(del), Check: bind(check), GC: bind(gc), Status: bind(status),
	}, version.All, "CNI plugin "+Name)
}

// exitCode prints err, as the specification demands, to standard output.
func exitCode(err *types.Error) int {
	if err == nil {
		return 0
	}
	if e := err.Print(); e != nil {
		fmt.Fprintf(os.Stderr, "%v; and its report failed: %v\n", err, e)
	}
	return 1
}
