package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ip"

	"github.com/coreos/flannel/cni/natchain"
	"github.com/coreos/flannel/cni/reservation"
)

// defaultInterface is the interface of an attachment that flannel-io/cni-plugin
// added. Its file does not have the name; engines of Kubernetes use this one.
const defaultInterface = "eth0"

// gc deletes what is left of attachments of this network that do not exist: first the
// rules of portmap and of bridge, which DEL without a namespace leaves, then the rest by
// the delegate's DEL, then the addresses that host-local still keeps. At last it forwards
// the command.
func gc(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	valid, err := parseValidity(c.Valid)
	if err != nil {
		return err
	}
	errs := []error{removeRules(ctx, c, valid), attachments{c.DataDir}.collect(ctx, c.Name, args.Path, valid),
		freeInvalid(c, valid), forwardGC(ctx, c)}
	if err := errors.Join(errs...); err != nil {
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
	return nil
}

// validity are the attachments that exist.
type validity struct {
	list        []types.GCAttachment
	attachments map[attachment]bool
	containers  map[string]bool
}

func parseValidity(text json.RawMessage) (validity, error) {
	v := validity{attachments: make(map[attachment]bool), containers: make(map[string]bool)}
	if err := json.Unmarshal(text, &v.list); err != nil { // also if the key is missing
		return v, invalid("the container engine has to list the attachments that exist", "the configuration of GC has no list cni.dev/valid-attachments: %v", err)
	}
	for _, at := range v.list {
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

// removeRules removes the rules of containers that do not exist. Some are known by the
// rules, the others by what flannel and host-local have saved of them.
func removeRules(ctx context.Context, c *config, valid validity) error {
	chains, err := natchain.List(c.Name)
	errs := []error{err}
	for _, chain := range chains {
		if !valid.containers[chain.Container] { // promise: gc-keeps-rules-of-pods
			errs = append(errs, chain.Remove())
		}
	}
	gone, err := c.gone(valid)
	return errors.Join(append(errs, err, natchain.RemoveHostports(ctx, gone), ip.GCIPMasqForNetwork(c.Name, valid.list))...)
}

// gone returns the saved containers of the network that do not exist.
func (c *config) gone(valid validity) (map[string]bool, error) {
	gone := make(map[string]bool)
	saved := attachments{c.DataDir}
	all, err := saved.list()
	for _, at := range all {
		if !valid.containers[at.container] && saved.isOf(at, c.Name) {
			gone[at.container] = true
		}
	}
	reserved, listErr := c.reserved()
	for _, r := range reserved {
		if !valid.containers[r.Container] {
			gone[r.Container] = true
		}
	}
	return gone, errors.Join(err, listErr)
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

// reserved returns the addresses that host-local keeps; none for another IPAM plugin.
func (c *config) reserved() ([]reservation.Reservation, error) {
	if kind, given := c.IPAM["type"]; given && kind != "host-local" {
		return nil, nil
	}
	dir, _ := c.IPAM["dataDir"].(string)
	return reservation.List(dir, c.Name)
}

// freeInvalid frees the addresses of attachments that do not exist. host-local
// itself does so since 1.10 only.
func freeInvalid(c *config, valid validity) error {
	all, err := c.reserved()
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
