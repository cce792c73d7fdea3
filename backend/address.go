package backend

import (
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// PeerAddr returns the address of a family that packets for a peer go to. The error
// is the peer's problem: its lease has a subnet of the family and no address.
func PeerAddr(l *subnet.Lease, f inet.Family) (netip.Addr, error) {
	a := l.Attrs.Addr(f)
	if !a.IsValid() {
		return a, fmt.Errorf("its lease names no %v address of the host; check the address and the flannel log there", f)
	}
	return a, nil
}

// DataKey returns the name that a lease has for a family's backend data.
func DataKey(f inet.Family) string {
	if f == inet.IPv4 {
		return "BackendData"
	}
	return "BackendV6Data"
}
