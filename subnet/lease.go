package subnet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Attrs are the attributes that a host publishes with its lease: the JSON value
// of its key.
type Attrs struct {
	// PublicIP receives the encapsulated packets of other hosts.
	PublicIP netip.Addr
	// BackendType is empty for udp and alloc, which predate the field.
	BackendType string `json:",omitempty"`
	// BackendData is the backend's own JSON, e.g. a VTEP's MAC; nil for none.
	BackendData json.RawMessage `json:",omitempty"`
	Extras
}

// Extras are fields that only this program writes, behind those that all
// generations of flannel share. Other programs ignore them. Empty fields are not
// written.
type Extras struct {
	// NodeID distinguishes hosts with the same public IP; see pkg/nodeid. It is
	// empty for a host that runs another flannel.
	NodeID string `json:",omitempty"`
	// Hostname names the host in messages; nothing else depends on it.
	Hostname string `json:",omitempty"`
	// Challenge is written by another host, to find out whether the owner of the
	// lease is alive ("NodeID@PublicIP" of that host). A living owner removes it.
	// The JSON key keeps the field's first name: earlier releases answer to it.
	Challenge string `json:"Claim,omitempty"`
	// DataPath is how the host carries packets, if its peers must know; "kernel"
	// means the udp backend's eBPF programs.
	DataPath string `json:",omitempty"`
}

// Equal reports whether a and b are the same.
func (a Attrs) Equal(b Attrs) bool { return a.routesAs(b) && a.Extras == b.Extras }

// routesAs reports whether packets to a host with a and with b are sent in the
// same way. NodeID, Hostname and Challenge do not matter for that.
func (a Attrs) routesAs(b Attrs) bool {
	return a.PublicIP == b.PublicIP && a.BackendType == b.BackendType &&
		sameJSON(a.BackendData, b.BackendData) && a.DataPath == b.DataPath
}

// sameJSON reports whether a and b differ at most in white space.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// SameHost reports whether stored describes the host that a describes: no other
// NodeID, and the same PublicIP; or the same NodeID and one of the former
// addresses. The NodeID alone is not enough: a copy of this host's disk may have
// taken the lease. A lease of another flannel has no NodeID.
func (a Attrs) SameHost(stored Attrs, former []netip.Addr) bool {
	if a.otherNode(stored) {
		return false
	}
	return stored.PublicIP == a.PublicIP ||
		stored.NodeID == a.NodeID && slices.Contains(former, stored.PublicIP) // promise: former-address-is-ours
}

// SameOwner reports whether leases with a and b belong to one host: by NodeID if
// both have one, else by PublicIP.
func (a Attrs) SameOwner(b Attrs) bool {
	if a.otherNode(b) {
		return false
	}
	return a.PublicIP == b.PublicIP || a.NodeID != "" && a.NodeID == b.NodeID // promise: node-id-proves-ownership
}

// otherNode reports whether a and b have different NodeIDs.
func (a Attrs) otherNode(b Attrs) bool {
	return a.NodeID != "" && b.NodeID != "" && a.NodeID != b.NodeID
}

// IsHostAddr reports whether ip can be a PublicIP: a unicast IPv4 address that
// other hosts can send to.
func IsHostAddr(ip netip.Addr) bool {
	return ip.Is4() && (ip.IsGlobalUnicast() || ip.IsLinkLocalUnicast())
}

// Lease is a subnet, the host that holds it, and its end.
type Lease struct {
	Subnet netip.Prefix
	// IPv6Subnet is the second half of the key of a dual-stack host of today's
	// flannel ("10.5.52.0-24&fd00:0:0:34::-64"), invalid for all other keys. Only
	// the IPv4 half is routed.
	IPv6Subnet netip.Prefix
	Attrs      Attrs
	// Expiration is the end of the lease. It is zero for a lease that does not
	// end, and for one from a List of a store that does not include it (Expirer).
	Expiration time.Time
	// Rev is the store's revision of the last write to the key, Created that of its
	// creation: of overlapping leases, the one that was created first is valid.
	Rev, Created Rev
	// Reserved: an operator keeps the subnet for the host that Attrs names. In
	// etcd such a key has no TTL. It does not mean "without an end": for that see
	// Expiration, as a store without TTLs has leases that never end.
	Reserved bool
}

// Ends returns the end of the lease; false if it does not end.
func (l Lease) Ends() (time.Time, bool) { return l.Expiration, !l.Expiration.IsZero() }

// Expiry returns the end of the lease for logs and messages.
func (l Lease) Expiry() string {
	if end, ends := l.Ends(); ends {
		return end.UTC().Format(time.RFC3339)
	}
	return "never"
}

// same reports whether all fields of two leases are equal.
func (l *Lease) same(m *Lease) bool {
	return l.Subnet == m.Subnet && l.IPv6Subnet == m.IPv6Subnet && l.Attrs.Equal(m.Attrs) &&
		l.Expiration.Equal(m.Expiration) && l.Rev == m.Rev && l.Created == m.Created && l.Reserved == m.Reserved
}

// Key returns the lease's key below <prefix>/subnets/, e.g. "10.5.52.0-24".
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

// StoredAs reports whether now is l unchanged: the same key, last written at the
// same revision with the same attributes.
func (l Lease) StoredAs(now Lease) bool {
	return l.Key() == now.Key() && l.Rev == now.Rev && l.Attrs.Equal(now.Attrs) // promise: owner-and-value-are-compared
}

// String returns the lease for logs and errors.
func (l Lease) String() string {
	return fmt.Sprintf("%v held by %v", l.Subnet, l.Attrs.PublicIP)
}

// EventType is the kind of change to a lease.
type EventType int

const (
	// Added: the lease is new, or its attributes changed.
	Added EventType = iota
	// Removed: the lease is gone; only Subnet is set. A Source sets IPv6Subnet
	// and Rev as well.
	Removed
)

// String returns the type in lower case, for logs.
func (t EventType) String() string {
	switch t {
	case Added:
		return "added"
	case Removed:
		return "removed"
	}
	return "EventType(" + strconv.Itoa(int(t)) + ")"
}

// Event is a change of one lease. All receivers share the Lease, as there are as
// many as hosts; none may change it.
type Event struct {
	Type  EventType
	Lease *Lease
}
