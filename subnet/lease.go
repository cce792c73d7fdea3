package subnet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/coreos/flannel/pkg/inet"
)

// Attrs are the attributes that a host publishes with its lease: the JSON value
// of its key.
type Attrs struct {
	// PublicIP and PublicIPv6 receive the encapsulated packets of other hosts. One
	// of both is valid at least.
	PublicIP   netip.Addr
	PublicIPv6 netip.Addr `json:",omitzero"`
	// BackendType is empty for udp and alloc, which predate the field.
	BackendType string `json:",omitempty"`
	// BackendData and BackendV6Data are the backend's own JSON for each family, e.g. a
	// VTEP's MAC; nil for none.
	BackendData   json.RawMessage `json:",omitempty"`
	BackendV6Data json.RawMessage `json:",omitempty"`
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
	// DataPathPairs are the families of packets and datagrams that DataPath takes, beside
	// IPv4 in IPv4, such as "6in4,6in6".
	DataPathPairs string `json:",omitempty"`
	// OffloadPort is the port at which the host answers offload probes, of UDP and TCP;
	// UDP also has the next one. 0: it answers none.
	OffloadPort uint16 `json:",omitempty"`
}

// Addr returns the address of a family that receives encapsulated packets; it is
// invalid if the host has none.
func (a Attrs) Addr(f inet.Family) netip.Addr {
	if f == inet.IPv4 {
		return a.PublicIP
	}
	return a.PublicIPv6
}

// Data returns the backend's data for a family.
func (a Attrs) Data(f inet.Family) json.RawMessage {
	if f == inet.IPv4 {
		return a.BackendData
	}
	return a.BackendV6Data
}

// SetFamily sets the address and the backend's data of a family.
func (a *Attrs) SetFamily(f inet.Family, addr netip.Addr, data json.RawMessage) {
	if f == inet.IPv4 {
		a.PublicIP, a.BackendData = addr, data
	} else {
		a.PublicIPv6, a.BackendV6Data = addr, data
	}
}

// HostAddr returns the address that identifies the host: the IPv4 address if it has
// one.
func (a Attrs) HostAddr() netip.Addr {
	if a.PublicIP.IsValid() {
		return a.PublicIP
	}
	return a.PublicIPv6
}

// SameAddr reports whether a and b have the same address. The IPv4 addresses decide
// if both have one.
func (a Attrs) SameAddr(b Attrs) bool {
	if a.PublicIP.IsValid() && b.PublicIP.IsValid() {
		return a.PublicIP == b.PublicIP
	}
	return a.PublicIPv6.IsValid() && a.PublicIPv6 == b.PublicIPv6
}

// Equal reports whether a and b are the same.
func (a Attrs) Equal(b Attrs) bool { return a.routesAs(b) && a.Extras == b.Extras }

// routesAs reports whether packets to a host with a and with b are sent in the
// same way. NodeID, Hostname and Challenge do not matter for that.
func (a Attrs) routesAs(b Attrs) bool {
	return a.PublicIP == b.PublicIP && a.PublicIPv6 == b.PublicIPv6 && a.BackendType == b.BackendType &&
		sameJSON(a.BackendData, b.BackendData) && sameJSON(a.BackendV6Data, b.BackendV6Data) &&
		a.DataPath == b.DataPath && a.DataPathPairs == b.DataPathPairs
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
// NodeID, and the same address; or the same NodeID and one of the former
// addresses. The NodeID alone is not enough: a copy of this host's disk may have
// taken the lease. A lease of another flannel has no NodeID.
func (a Attrs) SameHost(stored Attrs, former []netip.Addr) bool {
	if a.otherNode(stored) {
		return false
	}
	return stored.SameAddr(a) ||
		stored.NodeID == a.NodeID && slices.Contains(former, stored.HostAddr()) // promise: former-address-is-ours
}

// SameOwner reports whether leases with a and b belong to one host: by NodeID if
// both have one, else by address.
func (a Attrs) SameOwner(b Attrs) bool {
	if a.otherNode(b) {
		return false
	}
	return a.SameAddr(b) || a.NodeID != "" && a.NodeID == b.NodeID // promise: node-id-proves-ownership
}

// otherNode reports whether a and b have different NodeIDs.
func (a Attrs) otherNode(b Attrs) bool {
	return a.NodeID != "" && b.NodeID != "" && a.NodeID != b.NodeID
}

// IsHostAddr reports whether ip can be the PublicIP of a family: a unicast address
// that other hosts can send to.
func IsHostAddr(f inet.Family, ip netip.Addr) bool {
	return ip.IsValid() && inet.Of(ip) == f && !ip.Is4In6() && ip.Zone() == "" && (ip.IsGlobalUnicast() || ip.IsLinkLocalUnicast())
}

// Lease is the subnets of one host, at most one of each family, and their end. Both
// come and go together in the store; to the data plane each is a part of its own.
type Lease struct {
	// Subnet is the IPv4 part, IPv6Subnet the other; one of both is valid at least.
	Subnet, IPv6Subnet netip.Prefix

	Attrs Attrs
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

// SubnetOf returns the lease's part of a family; it is invalid if there is none.
func (l Lease) SubnetOf(f inet.Family) netip.Prefix {
	if f == inet.IPv4 {
		return l.Subnet
	}
	return l.IPv6Subnet
}

// WithSubnet returns l with another part of p's family.
func (l Lease) WithSubnet(p netip.Prefix) Lease {
	if inet.Of(p.Addr()) == inet.IPv4 {
		l.Subnet = p
	} else {
		l.IPv6Subnet = p
	}
	return l
}

// Without returns l without the part of a family.
func (l Lease) Without(f inet.Family) Lease {
	if f == inet.IPv4 {
		l.Subnet = netip.Prefix{}
	} else {
		l.IPv6Subnet = netip.Prefix{}
	}
	return l
}

// IsValid reports whether l has a part.
func (l Lease) IsValid() bool { return l.Subnet.IsValid() || l.IPv6Subnet.IsValid() }

// Overlaps reports whether a part of l overlaps one of m.
func (l Lease) Overlaps(m Lease) bool {
	return l.Subnet.Overlaps(m.Subnet) || l.IPv6Subnet.Overlaps(m.IPv6Subnet)
}

// FirstFamily returns the family that decides about the whole lease: IPv4 if it has
// that part.
func (l Lease) FirstFamily() inet.Family {
	if l.Subnet.IsValid() {
		return inet.IPv4
	}
	return inet.IPv6
}

// first returns the part that stands for the lease where leases are counted.
func (l *Lease) first() netip.Prefix { return l.SubnetOf(l.FirstFamily()) }

// Parts returns the subnets of the lease, the IPv4 one first.
func (l Lease) Parts() (parts []netip.Prefix) {
	for _, f := range inet.Families {
		if p := l.SubnetOf(f); p.IsValid() {
			parts = append(parts, p)
		}
	}
	return parts
}

// Subnets returns the parts for logs and messages, separated by a comma.
func (l Lease) Subnets() string {
	if l.Subnet.IsValid() && l.IPv6Subnet.IsValid() {
		return l.Subnet.String() + "," + l.IPv6Subnet.String()
	}
	return l.first().String()
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

// noIPv4 is the IPv4 half of the key of a lease without an IPv4 part.
const noIPv4 = "0.0.0.0-0"

// Key returns the lease's key below <prefix>/subnets/, e.g. "10.5.52.0-24". Of two
// parts it is "10.5.52.0-24&fd00:0:0:34::-64".
func (l Lease) Key() string {
	key := noIPv4
	if l.Subnet.IsValid() {
		key = dashed(l.Subnet)
	}
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
	return fmt.Sprintf("%s held by %v", l.Subnets(), l.Attrs.HostAddr())
}

// EventType is the kind of change to a lease.
type EventType int

const (
	// Added: the lease is new, or its attributes changed.
	Added EventType = iota
	// Removed: the lease is gone. Its subnets are set; of a Source's, Rev as well.
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
	// Family is that of the part that has changed. A Source's events are of whole
	// leases, and do not set it.
	Family inet.Family
}

// Subnet returns the part of the lease that has changed.
func (e Event) Subnet() netip.Prefix { return e.Lease.SubnetOf(e.Family) }
