package etcdv3

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/subnet"
)

// value is the JSON of a lease key, byte for byte what today's flannel writes
// where there are no Extras.
type value struct {
	PublicIP    netip.Addr
	PublicIPv6  *netip.Addr     // always null: one lease is of one family
	BackendType string          `json:",omitempty"`
	BackendData json.RawMessage `json:",omitempty"`
	subnet.Extras
}

// encode is l's value. It refuses what readers would not understand: a single
// key that does not parse makes today's flannel drop every route.
func encode(l subnet.Lease) ([]byte, error) {
	a := l.Attrs
	v, err := json.Marshal(value{PublicIP: a.PublicIP, BackendType: a.BackendType, BackendData: a.BackendData, Extras: a.Extras})
	if err == nil {
		_, err = subnet.ParseLease(l.Key(), v)
	}
	if err != nil {
		return nil, fmt.Errorf("encode lease %v: %w", l, err)
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
