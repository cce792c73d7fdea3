// Package bundled has the CNI plugins that a pod needs beside flannel's own, as
// packages of github.com/containernetworking/plugins. A host that lacks them gets
// them with flannel's program.
//
// generate makes the packages below of the version in go.mod.
package bundled

import (
	"path/filepath"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/coreos/flannel/cni/bundled/bridge"
	"github.com/coreos/flannel/cni/bundled/hostlocal"
	"github.com/coreos/flannel/cni/bundled/loopback"
	"github.com/coreos/flannel/cni/bundled/portmap"
)

//go:generate go run ./generate

// Plugin is a plugin's commands.
type Plugin struct {
	skel.CNIFuncs
	versions version.PluginInfo
	about    string
}

// Names returns the plugins' names, which are those of their programs.
func Names() []string { return []string{"bridge", "host-local", "loopback", "portmap"} }

// Find returns the plugin that a program of this name or path is, and nil if it is
// none.
func Find(program string) *Plugin {
	var p Plugin
	switch filepath.Base(program) {
	case "bridge":
		p.CNIFuncs, p.versions, p.about = bridge.New()
	case "host-local":
		p.CNIFuncs, p.versions, p.about = hostlocal.New()
	case "loopback":
		p.CNIFuncs, p.versions, p.about = loopback.New()
	case "portmap":
		p.CNIFuncs, p.versions, p.about = portmap.New()
	default:
		return nil
	}
	return &p
}

// Run runs the plugin for the command in the environment. The plugins work in the
// network namespace of their thread.
func (p *Plugin) Run() *types.Error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return skel.PluginMainFuncsWithError(p.CNIFuncs, p.versions, p.about)
}
