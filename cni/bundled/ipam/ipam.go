// Package ipam runs IPAM plugins for the bundled bridge, in place of the package of
// this name of containernetworking/plugins. It runs host-local in this process, and any
// other plugin as a program. The addresses of host-local are in the same files either way.
package ipam

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	plugins "github.com/containernetworking/plugins/pkg/ipam"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/cni/bundled/hostlocal"
	"github.com/coreos/flannel/cni/bundled/link"
)

// ConfigureIface gives the interface the addresses and routes of the result.
func ConfigureIface(ifName string, res *current.Result) error {
	return plugins.ConfigureIface(ifName, res)
}

// ExecAdd runs the plugin's ADD with the configuration.
func ExecAdd(plugin string, conf []byte) (types.Result, error) {
	if !isOwn(plugin) {
		return plugins.ExecAdd(plugin, conf)
	}
	commands, _, _ := hostlocal.New()
	text, err := printed(func() error { return commands.Add(arguments(conf)) })
	if err != nil {
		return nil, err
	}
	return create.CreateFromBytes(text)
}

// ExecDel runs the plugin's DEL with the configuration.
func ExecDel(plugin string, conf []byte) error {
	if !isOwn(plugin) {
		return plugins.ExecDel(plugin, conf)
	}
	commands, _, _ := hostlocal.New()
	return commands.Del(arguments(conf))
}

// ExecCheck runs the plugin's CHECK with the configuration.
func ExecCheck(plugin string, conf []byte) error { return plugins.ExecCheck(plugin, conf) }

// ExecStatus runs the plugin's STATUS with the configuration.
func ExecStatus(plugin string, conf []byte) error { return plugins.ExecStatus(plugin, conf) }

// isOwn reports whether the plugin is host-local, and what CNI's folders have is the same one.
func isOwn(plugin string) bool {
	if plugin != "host-local" {
		return false
	}
	path, err := invoke.FindInPath(plugin, filepath.SplitList(os.Getenv("CNI_PATH")))
	return err == nil && link.Runs(path)
}

// arguments returns those of this process with another configuration.
func arguments(conf []byte) *skel.CmdArgs {
	return &skel.CmdArgs{ContainerID: os.Getenv("CNI_CONTAINERID"), Netns: os.Getenv("CNI_NETNS"), IfName: os.Getenv("CNI_IFNAME"),
		Args: os.Getenv("CNI_ARGS"), Path: os.Getenv("CNI_PATH"), StdinData: conf}
}

// printed returns what run prints to standard output. Nothing else may print
// meanwhile: the process is a plugin, which does one thing.
func printed(run func() error) (text []byte, err error) {
	fd, err := unix.MemfdCreate("result", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file for the result of host-local: %w", err)
	}
	file := os.NewFile(uintptr(fd), "result")
	defer file.Close()
	stdout := os.Stdout
	os.Stdout = file
	err = run()
	os.Stdout = stdout
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}
