// Package masq keeps the firewall rules of the overlay: what is masqueraded,
// and that packets from and to the overlay are forwarded.
//
// The rules live in one nftables table of our own for each overlay network,
// such as "flannel-10.5.0.0-16" for 10.5.0.0/16, and in no chain of anybody
// else's. Every change replaces the table in one transaction, so no packet
// meets half of it. "nft list table ip flannel-10.5.0.0-16" shows it with
// counters.
//
// # What an accept of ours cannot do
//
// A packet passes every base chain at the forward hook, in priority order; an
// accept ends its way through that chain only, and a drop in any other chain is
// final (nft(8), "Verdict statements"). Docker drops new connections from
// outside to its containers in the FORWARD chain of iptables, and offers the
// chain DOCKER-USER for exceptions, which are the operator's to make. Run
// therefore says in the log which chains drop by default, and the counters in
// our own forward chain tell whether a lost packet came that far.
package masq

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
)

// Rules says what the table is to do.
type Rules struct {
	// Network is the overlay's whole range, Subnet this host's part of it.
	Network, Subnet netip.Prefix
	// Masquerade hides overlay addresses from the outside world, and outside
	// addresses from the overlay. Between overlay addresses nothing is hidden.
	Masquerade bool
}

// Apply makes the table for r, in place of the one that may be there, in the
// network namespace of the calling thread. It needs CAP_NET_ADMIN.
func Apply(r Rules) error {
	c, err := r.connect()
	if err != nil {
		return fmt.Errorf("apply nftables rules: %w", err)
	}
	t := table(r.Network)
	// Deleting a table that is not there fails the transaction: add it first.
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	r.addChains(c, t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("apply nftables table %s: %w", t.Name, err)
	}
	return nil
}

// Remove deletes the table of network, if there is one.
func Remove(network netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("remove nftables rules: %w", err)
	}
	t := table(network)
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", t.Name, err)
	}
	return nil
}

func (r Rules) connect() (*nftables.Conn, error) {
	switch n, s := r.Network, r.Subnet; {
	case !n.IsValid() || !s.IsValid():
		return nil, fmt.Errorf("network %v or subnet %v is not valid", n, s)
	case n.Bits() > s.Bits() || !n.Contains(s.Addr()):
		return nil, fmt.Errorf("subnet %v is not within network %v", s, n)
	}
	return nftables.New()
}

// TableName is the name of network's table.
func TableName(network netip.Prefix) string { return table(network).Name }

// table names network's table so that daemons of different networks on one
// host do not meet, and so that nft needs no quotes around the name.
func table(network netip.Prefix) *nftables.Table {
	network = network.Masked()
	name := "flannel-" + network.Addr().String() + "-" + strconv.Itoa(network.Bits())
	t := &nftables.Table{Name: strings.ReplaceAll(name, ":", "_"), Family: nftables.TableFamilyIPv4}
	if network.Addr().Is6() {
		t.Family = nftables.TableFamilyIPv6
	}
	return t
}
