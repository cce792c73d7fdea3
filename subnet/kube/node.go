package kube

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// node is the part of a Node object that leases depend on.
type node struct {
	Metadata struct {
		Name            string            `json:"name"`
		UID             string            `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		PodCIDR  string   `json:"podCIDR"`
		PodCIDRs []string `json:"podCIDRs"`
	} `json:"spec"`
}

// rev returns the resource version. It is a number that grows with each change
// of any object (KEP-5504).
func (n *node) rev() (subnet.Rev, error) { return parseRev(n.Metadata.ResourceVersion) }

func parseRev(s string) (subnet.Rev, error) {
	r, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resource version %q is not a number", s)
	}
	return subnet.Rev(r), nil
}

// errUnassigned: the Node has no podCIDR yet.
var errUnassigned = fmt.Errorf("has no podCIDR (%w): run kube-controller-manager with -allocate-node-cidrs=true and -cluster-cidr, or set spec.podCIDR of the Node", subnet.ErrUnassigned)

// subnets returns the podCIDR of each family; one is invalid if the Node has none.
func (n *node) subnets() (v4, v6 netip.Prefix, err error) {
	all := n.Spec.PodCIDRs
	if len(all) == 0 && n.Spec.PodCIDR != "" {
		all = []string{n.Spec.PodCIDR}
	}
	if len(all) == 0 {
		return v4, v6, fmt.Errorf("node %s %w", n.Metadata.Name, errUnassigned)
	}
	for _, text := range all {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return v4, v6, fmt.Errorf("podCIDR %q of node %s: %w", text, n.Metadata.Name, err)
		}
		family := &v4
		if inet.Of(p.Addr()) == inet.IPv6 {
			family = &v6
		}
		if family.IsValid() {
			return v4, v6, fmt.Errorf("node %s has two podCIDRs of one family: %v", n.Metadata.Name, all)
		}
		*family = p.Masked()
	}
	return v4, v6, nil
}

// key returns the lease that the podCIDRs name, without attributes.
func (n *node) key() (subnet.Lease, error) {
	v4, v6, err := n.subnets()
	if err != nil {
		return subnet.Lease{}, err
	}
	rev, err := n.rev()
	if err != nil {
		return subnet.Lease{}, err
	}
	return subnet.Lease{Subnet: v4, IPv6Subnet: v6, Rev: rev}, nil
}
