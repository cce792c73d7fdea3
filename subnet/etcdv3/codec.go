package etcdv3

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/subnet"
)

// value is the JSON of a lease key, byte for byte what today's flannel writes.
type value struct {
	PublicIP    netip.Addr
	PublicIPv6  *netip.Addr     // always null: one lease is of one family
	BackendType string          `json:",omitempty"`
	BackendData json.RawMessage `json:",omitempty"`
}

func encode(a subnet.Attrs) ([]byte, error) {
	v, err := json.Marshal(value{PublicIP: a.PublicIP, BackendType: a.BackendType, BackendData: a.BackendData})
	if err != nil {
		return nil, fmt.Errorf("encode lease attributes: %w", err)
	}
	return v, nil
}

// sameMeaning reports whether a peer learns the same from both values. It
// compares what they decode to: other programs add fields that we do not have.
func sameMeaning(key string, stored, wanted []byte) bool {
	s, err := subnet.ParseLease(key, stored)
	if err != nil {
		return false
	}
	w, err := subnet.ParseLease(key, wanted)
	return err == nil && s.Attrs.Equal(w.Attrs)
}
