package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/coreos/flannel/cni/reservation"
)

// defaultInterface is the interface of an attachment that flannel-io/cni-plugin
// added. Its file does not have the name; engines of Kubernetes use this one.
const defaultInterface = "eth0"

// gc deletes what is left of attachments of this network that do not exist: first
// by the delegate's DEL, then the addresses that host-local still keeps. At last it
// forwards the command.
func gc(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	valid, err := parseValidity(c.Valid)
	if err != nil {
		return err
	}
	errs := []error{attachments{c.DataDir}.collect(ctx, c.Name, args.Path, valid)}
	if kind, given := c.IPAM["type"]; !given || kind == "host-local" {
		errs = append(errs, freeInvalid(c, valid))
	}
	errs = append(errs, forwardGC(ctx, c))
	if err := errors.Join(errs...); err != nil {
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
	return nil
}

// validity are the attachments that exist.
type validity struct {
	attachments map[attachment]bool
	containers  map[string]bool
}

func parseValidity(text json.RawMessage) (validity, error) {
	v := validity{make(map[attachment]bool), make(map[string]bool)}
	var list []types.GCAttachment
	if err := json.Unmarshal(text, &list); err != nil { // also if the key is missing
		return v, invalid("the container engine has to list the attachments that exist", "the configuration of GC has no list cni.dev/valid-attachments: %v", err)
	}
	for _, at := range list {
		v.attachments[attachment{at.ContainerID, at.IfName}] = true
		v.containers[at.ContainerID] = true
	}
	return v, nil
}

// has reports whether at exists. Records of old programs have no interface.
func (v validity) has(at attachment) bool {
	if at.ifname == "" {
		return v.containers[at.container]
	}
	return v.attachments[at]
}

// collect deletes the saved attachments of a network that do not exist.
func (a attachments) collect(ctx context.Context, network, path string, valid validity) error {
	all, err := a.list()
	errs := []error{err}
	for _, at := range all {
		if valid.has(at) || !a.isOf(at, network) { // promise: gc-is-of-one-network
			continue
		}
		if at.ifname == "" {
			at.ifname = defaultInterface
		}
		// Without a namespace the delegate frees the address, and nothing else.
		env := &invoke.Args{Command: "DEL", ContainerID: at.container, IfName: at.ifname, Path: path}
		errs = append(errs, a.delete(at, func(d *delegate, conf []byte) error {
			path, err := findPlugin(d.plugin)
			if err == nil {
				_, err = execPlugin(ctx, path, conf, env)
			}
			return err
		}))
	}
	return errors.Join(errs...)
}

// isOf reports whether the saved attachment is in the network. An unreadable file
// is in none.
func (a attachments) isOf(at attachment, network string) bool {
	conf, err := a.load(at)
	if err != nil {
		return false
	}
	d, err := parseDelegate(conf)
	return err == nil && d.conf["name"] == network
}

// freeInvalid frees the addresses of attachments that do not exist. host-local
// itself does so since 1.10 only.
func freeInvalid(c *config, valid validity) error {
	dir, _ := c.IPAM["dataDir"].(string)
	all, err := reservation.List(dir, c.Name)
	errs := []error{err}
	for _, r := range all {
		if !valid.has(attachment{r.Container, r.Interface}) {
			errs = append(errs, r.Free())
		}
	}
	return errors.Join(errs...)
}

// forwardGC forwards the command to the delegate, and to its IPAM plugin: bridge
// does not forward it.
func forwardGC(ctx context.Context, c *config) error {
	env, err := readSubnetEnv(ctx, c.SubnetFile, types.ErrTryAgainLater)
	if err != nil {
		return fmt.Errorf("forward GC: %w", err)
	}
	d, err := c.delegate(env)
	if err != nil {
		return err
	}
	d = d.with("cni.dev/valid-attachments", c.Valid)
	err = d.run(ctx, "GC")
	if ipam, ok := d.conf["ipam"].(map[string]any); ok {
		err = errors.Join(err, (&delegate{fmt.Sprint(ipam["type"]), d.conf}).run(ctx, "GC"))
	}
	return err
}
