// Package masq keeps the firewall rules of the overlay. They masquerade packets
// that leave or enter the overlay, and accept those from and to it for forwarding.
//
// The rules are in one nftables table for each overlay network, such as
// "flannel-10.5.0.0-16" for 10.5.0.0/16, or "flannel-fd00_5__-48" for fd00:5::/48. No
// chain of another program is changed. Each change replaces the table in one
// transaction: no packet meets a part of it.
// "nft list table ip flannel-10.5.0.0-16" shows the table with counters.
//
// # Limits of an accept
//
// A packet passes every base chain at the forward hook, in priority order. An
// accept ends its way through that chain only; a drop in any chain is final (nft(8),
// "Verdict statements"). Docker drops new connections from outside to its
// containers in the FORWARD chain of iptables. The operator can add exceptions in
// the chain DOCKER-USER. Run therefore logs the chains that drop by default. The
// counters in our forward chain show whether a lost packet came that far.
package masq

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"github.com/coreos/flannel/pkg/nftbatch"
)

// Rules describes the table.
type Rules struct {
	// Network is the overlay's whole range, Subnet this host's part of it.
	Network, Subnet netip.Prefix
	// Exclude are destinations, of the network's family, to which packets keep the
	// source of their container.
	Exclude []netip.Prefix
	// NoForward leaves out the forward chain. OrderedPorts masquerades without random
	// ports.
	NoForward, OrderedPorts bool
}

// Apply makes the table for r in the network namespace of the calling thread, or
// replaces it. It needs CAP_NET_ADMIN.
func Apply(r Rules) error {
	c, err := r.connect()
	if err != nil {
		return fmt.Errorf("apply nftables rules: %w", explain(err))
	}
	return r.apply(c)
}

func (r Rules) apply(c *nftables.Conn) error {
	t := table(r.Network)
	// Deleting a table that does not exist fails the transaction: add it first.
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	r.addChains(c, t)
	if err := nftbatch.Flush(c); err != nil {
		return fmt.Errorf("apply nftables table %s: %w", t.Name, explain(err))
	}
	return nil
}

// explain adds the modules that the rules need to an error.
func explain(err error) error {
	return nftbatch.Explain(err, "nf_tables", "nft_chain_nat", "nft_masq")
}

// Remove deletes the table of network if it exists.
func Remove(network netip.Prefix) error { return nftbatch.Remove(table(network)) }

func (r Rules) connect(options ...nftables.ConnOption) (*nftables.Conn, error) {
	switch n, s := r.Network, r.Subnet; {
	case !n.IsValid() || !s.IsValid():
		return nil, fmt.Errorf("network %v or subnet %v is not valid", n, s)
	case n.Bits() > s.Bits() || !n.Contains(s.Addr()):
		return nil, fmt.Errorf("subnet %v is not within network %v", s, n)
	}
	return nftables.New(options...)
}

// TableName returns the name of network's table.
func TableName(network netip.Prefix) string { return table(network).Name }

// table returns network's table. Each network on a host has a table of its own.
// nft needs no quotes around the name.
func table(network netip.Prefix) *nftables.Table {
	network = network.Masked()
	name := "flannel-" + network.Addr().String() + "-" + strconv.Itoa(network.Bits())
	t := &nftables.Table{Name: strings.ReplaceAll(name, ":", "_"), Family: nftables.TableFamilyIPv4}
	if network.Addr().Is6() {
		t.Family = nftables.TableFamilyIPv6
	}
	return t
}
