package etcdv3

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// value is the JSON of a lease key. Without Extras it equals the value of today's
// flannel byte for byte.
type value struct {
	PublicIP      netip.Addr      // 0.0.0.0 for a host without one
	PublicIPv6    *netip.Addr     // null for a host without one
	BackendType   string          `json:",omitempty"`
	BackendData   json.RawMessage `json:",omitempty"`
	BackendV6Data json.RawMessage `json:",omitempty"`
	subnet.Extras
}

// encode returns l's value, or an error if key or value do not parse.
func encode(l subnet.Lease) ([]byte, error) {
	a := l.Attrs
	v := value{PublicIP: a.PublicIP, BackendType: a.BackendType, BackendData: a.BackendData, BackendV6Data: a.BackendV6Data, Extras: a.Extras}
	if !a.PublicIP.IsValid() {
		v.PublicIP = inet.IPv4.Unspecified()
	}
	if a.PublicIPv6.IsValid() {
		v.PublicIPv6 = &a.PublicIPv6
	}
	encoded, err := json.Marshal(v)
	if err == nil {
		_, err = subnet.ParseLease(l.Key(), encoded)
	}
	if err != nil {
		return nil, fmt.Errorf("encode lease %v: %w", l, err)
	}
	return encoded, nil
}
