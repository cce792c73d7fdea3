package subnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Attrs is what a host tells the others about itself: the JSON value of its
// lease key.
type Attrs struct {
	// PublicIP is the address that other hosts send encapsulated packets to.
	PublicIP netip.Addr
	// BackendType is empty for udp and alloc, which predate the field.
	BackendType string `json:",omitempty"`
	// BackendData is the backend's own JSON, e.g. a VTEP's MAC; nil for none.
	BackendData json.RawMessage `json:",omitempty"`
	Extras
}

// Extras is what only this program writes into the value of a lease key, behind
// the fields that all generations of flannel share; those pass over fields that
// they do not know. An empty one is not written.
type Extras struct {
	// NodeID tells hosts apart that have one public IP; see pkg/nodeid. Empty for
	// a host that runs another flannel.
	NodeID string `json:",omitempty"`
	// Hostname names the host in messages to people; nothing else goes by it.
	Hostname string `json:",omitempty"`
	// Claim is not the owner's: a host that believes that the lease is its own
	// asks with it whether the owner is alive. An owner that is takes it away.
	Claim string `json:",omitempty"`
	// DataPath is how the host moves packets, where its peers must know; "kernel"
	// is the udp backend's eBPF programs.
	DataPath string `json:",omitempty"`
}

// Equal reports whether a and b say the same.
func (a Attrs) Equal(b Attrs) bool { return a.routesAs(b) && a.Extras == b.Extras }

// routesAs reports whether a and b mean the same to a peer that sends packets:
// who the host is, and who asks it whether it is alive, does not matter there.
func (a Attrs) routesAs(b Attrs) bool {
	return a.PublicIP == b.PublicIP && a.BackendType == b.BackendType &&
		slices.Equal(a.BackendData, b.BackendData) && a.DataPath == b.DataPath
}

// Lease is a subnet, the host that holds it, and until when.
type Lease struct {
	Subnet netip.Prefix
	// IPv6Subnet is the second half of the key that a dual-stack host of
	// today's flannel writes ("10.5.52.0-24&fd00:0:0:34::-64"); invalid for all
	// other keys. Only the IPv4 half is routed.
	IPv6Subnet netip.Prefix
	Attrs      Attrs
	// Expiration is zero where the store does not tell it with the key (etcd
	// v3, other hosts' leases), and for a reservation.
	Expiration time.Time
	// Rev is the store's revision of the last write to the key.
	Rev Rev
	// Reserved marks a key without a time limit, made by an operator.
	Reserved bool
}

// same reports whether two leases differ in nothing.
func (l *Lease) same(m *Lease) bool {
	return l.Subnet == m.Subnet && l.IPv6Subnet == m.IPv6Subnet && l.Attrs.Equal(m.Attrs) &&
		l.Expiration.Equal(m.Expiration) && l.Rev == m.Rev && l.Reserved == m.Reserved
}

// Key is the lease's name below <prefix>/subnets/, e.g. "10.5.52.0-24".
func (l Lease) Key() string {
	key := dashed(l.Subnet)
	if l.IPv6Subnet.IsValid() {
		key += "&" + dashed(l.IPv6Subnet)
	}
	return key
}

func dashed(p netip.Prefix) string {
	return p.Addr().String() + "-" + strconv.Itoa(p.Bits())
}

// String names the lease in logs and errors.
func (l Lease) String() string {
	return fmt.Sprintf("%v held by %v", l.Subnet, l.Attrs.PublicIP)
}

// EventType says what happened to a lease.
type EventType int

const (
	// Added: the lease is new, or its attributes changed.
	Added EventType = iota
	// Removed: the lease is gone; only Subnet is set (from a Registry, IPv6Subnet
	// and Rev as well).
	Removed
)

func (t EventType) String() string {
	switch t {
	case Added:
		return "added"
	case Removed:
		return "removed"
	}
	return "EventType(" + strconv.Itoa(int(t)) + ")"
}

// Event is a change of one lease. All who are told of a lease share one value,
// of which there are as many as hosts: nobody changes it.
type Event struct {
	Type  EventType
	Lease *Lease
}
