package cli

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/coreos/flannel/subnet"
)

// leaseJSON is a lease in the output of "leases -json".
type leaseJSON struct {
	Subnet      netip.Prefix    `json:"subnet"`
	PublicIP    netip.Addr      `json:"public_ip"`
	Hostname    string          `json:"hostname,omitempty"`
	NodeID      string          `json:"node_id,omitempty"`
	ExpiresAt   time.Time       `json:"expires_at,omitzero"`
	Reserved    bool            `json:"reserved"`
	BackendType string          `json:"backend_type,omitempty"`
	BackendData json.RawMessage `json:"backend_data,omitempty"`
}

func newLeaseJSON(l subnet.Lease) leaseJSON {
	return leaseJSON{l.Subnet, l.Attrs.PublicIP, l.Attrs.Hostname, l.Attrs.NodeID,
		l.Expiration, l.Reserved, l.Attrs.BackendType, l.Attrs.BackendData}
}

// leaseChange is the output of "reserve -json" and "release -json": the lease
// after the reservation, or before its release.
type leaseChange struct {
	Changed bool      `json:"changed"`
	Lease   leaseJSON `json:"lease"`
}
