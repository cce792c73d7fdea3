package etcdv3

import (
	"encoding/json"
	"net/netip"

	"github.com/coreos/flannel/subnet"
)

// value is the JSON of a lease key. Without Extras it equals the value of today's
// flannel byte for byte.
type value struct {
	PublicIP    netip.Addr
	PublicIPv6  *netip.Addr     // always null: a lease has one family
	BackendType string          `json:",omitempty"`
	BackendData json.RawMessage `json:",omitempty"`
	subnet.Extras
}

// encode returns l's value, or an error if key or value do not parse.
func encode(l subnet.Lease) ([]byte, error) {
	if _, err := subnet.EncodeLease(l); err != nil {
		return nil, err
	}
	a := l.Attrs
	return json.Marshal(value{PublicIP: a.PublicIP, BackendType: a.BackendType, BackendData: a.BackendData, Extras: a.Extras})
}
