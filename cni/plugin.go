package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/coreos/flannel/cni/bundled"
	"github.com/coreos/flannel/cni/bundled/link"
)

// add saves the delegate's configuration and runs the delegate, whose result it
// prints unchanged. The engine follows an ADD that failed by a DEL, which needs what
// was saved.
func add(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	env, err := readSubnetEnv(ctx, c.SubnetFile, types.ErrTryAgainLater)
	if err != nil {
		return err
	}
	d, err := c.delegate(env)
	if err != nil {
		return err
	}
	conf, err := d.json()
	if err != nil {
		return err
	}
	at := attachment{args.ContainerID, args.IfName}
	if err := (attachments{c.DataDir}).save(at, conf); err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("save the configuration of %s: %v", at.container, err), "DEL needs it; give "+c.DataDir+" space and write access")
	}
	if err := d.attach(ctx, "ADD", conf, args); err != nil {
		return explain(err, "ADD by the plugin "+d.plugin)
	}
	return nil
}

// del runs the delegate with the saved configuration, which it removes after
// success. Nothing saved is success: the attachment is deleted, or was never added.
func del(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	return attachments{c.DataDir}.delete(attachment{args.ContainerID, args.IfName}, func(d *delegate, conf []byte) error {
		return d.attach(ctx, "DEL", conf, args)
	})
}

// delete runs the delegate's DEL for at by run, and removes what is saved of it.
func (a attachments) delete(at attachment, run func(*delegate, []byte) error) error {
	conf, err := a.load(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("read the saved configuration of %s: %v", at.container, err), "")
	}
	d, err := parseDelegate(conf)
	if err != nil { // a DEL can never succeed
		fmt.Fprintf(os.Stderr, "the saved configuration of %s is unreadable, and its address may stay reserved: %v\n", at.container, err)
	} else if err := run(d, conf); err != nil { // promise: saved-until-deleted
		return explain(err, fmt.Sprintf("DEL by the plugin %s, to be repeated", d.plugin))
	}
	if err := a.remove(at); err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("remove the saved configuration of %s: %v", at.container, err), "")
	}
	return nil
}

// check runs the delegate's CHECK with the saved configuration and the engine's
// result of ADD.
func check(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	conf, err := attachments{c.DataDir}.load(attachment{args.ContainerID, args.IfName})
	if err != nil {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("%s has no saved configuration of %s: %v", args.ContainerID, args.IfName, err), "make the pod again")
	}
	d, err := parseDelegate(conf)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("parse the saved configuration of %s: %v", args.ContainerID, err), "make the pod again")
	}
	d = d.with("cniVersion", c.CNIVersion) // that of the result
	if c.PrevResult != nil {
		d = d.with("prevResult", c.PrevResult)
	}
	return d.run(ctx, "CHECK")
}

// status reports whether an ADD would succeed, as far as flannel and its delegate
// know.
func status(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	env, err := readSubnetEnv(ctx, c.SubnetFile, types.ErrPluginNotAvailable)
	if err != nil {
		return err
	}
	d, err := c.delegate(env)
	if err != nil {
		return err
	}
	return d.run(ctx, "STATUS")
}

// attach runs ADD or DEL, of which the first prints its result. If the program in CNI's
// folder is a build of a bundled plugin, that runs in this process: one more process
// costs a pod's start some milliseconds.
func (d *delegate) attach(ctx context.Context, command string, conf []byte, args *skel.CmdArgs) error {
	path, err := findPlugin(d.plugin)
	if err != nil {
		return err
	}
	if own := bundled.Find(d.plugin); own != nil && link.Runs(path) {
		inside := *args
		inside.StdinData = conf
		if command == "ADD" {
			return own.Add(&inside)
		}
		return own.Del(&inside)
	}
	result, err := execPlugin(ctx, path, conf, &invoke.DelegateArgs{Command: command})
	if err == nil {
		_, err = os.Stdout.Write(result)
	}
	return err
}

// run runs a command without a result: CHECK, STATUS or GC.
func (d *delegate) run(ctx context.Context, command string) error {
	conf, err := d.json()
	if err != nil {
		return err
	}
	path, err := findPlugin(d.plugin)
	if err == nil {
		_, err = execPlugin(ctx, path, conf, &invoke.DelegateArgs{Command: command})
	}
	if err != nil {
		return explain(err, command+" by the plugin "+d.plugin)
	}
	return nil
}

// findPlugin returns the path of a plugin's program in the folders of CNI_PATH.
func findPlugin(plugin string) (string, error) {
	path, err := invoke.FindInPath(plugin, filepath.SplitList(os.Getenv("CNI_PATH")))
	if err != nil {
		return "", types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "\"flannel install-cni\" installs the plugins bridge, host-local, loopback and portmap; install others from github.com/containernetworking/plugins")
	}
	return path, nil
}

// execPlugin runs a program and returns what it prints.
func execPlugin(ctx context.Context, path string, conf []byte, env invoke.CNIArgs) ([]byte, error) {
	return (&invoke.RawExec{Stderr: os.Stderr}).ExecPlugin(ctx, path, conf, env.AsEnv())
}
