package subnet

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Errors of a Holder, possibly wrapped; test with errors.Is.
var (
	// ErrLost: another host has the subnet. The lease cannot be renewed.
	ErrLost = errors.New("lease is lost to another host")
	// ErrFull: every subnet that the configuration allows is taken.
	ErrFull = errors.New("no free subnet is left")
	// ErrStoreTimeout: the store has not answered for Hints.StoreTimeout.
	ErrStoreTimeout = errors.New("store does not answer")
	// ErrAddressInUse: a living host with another NodeID has a lease with our
	// PublicIP.
	ErrAddressInUse = errors.New("another living host has this public IP")
	// ErrCloned: a living host with another PublicIP has a lease with our NodeID,
	// as after a copy of its disk. This host needs a new NodeID.
	ErrCloned = errors.New("another living host has this node id")
)

// Holder obtains this host's lease and keeps it in the store. How that is done
// depends on the store:
//
//   - etcd (package etcd): hosts choose subnets themselves. A lease has a TTL and
//     is extended by compare-and-swap. Two hosts that claim one identity settle it
//     by a liveness challenge.
//   - A store that assigns subnets: Acquire waits for the assignment and writes
//     the attributes beside it. The lease has no TTL, so its Expiration is zero.
//
// The Manager decides when to renew, retries and reports; a Holder needs neither
// timers nor a goroutine for that. One call at a time is made.
type Holder interface {
	// Acquire obtains a lease for the host that a describes. It waits for a store
	// that does not answer, until ctx ends or Hints.StoreTimeout is over. The
	// lease that it returns is stored, with these attributes.
	// Errors: ErrFull, ErrAddressInUse, ErrCloned, ErrStoreTimeout, or ctx's.
	Acquire(ctx context.Context, a Attrs, h Hints) (Lease, error)

	// Renew makes one attempt to store the attributes a with the lease l and, if
	// the lease has a TTL, to extend it. The stored lease may differ from l:
	// another party may have written or deleted it. Renew restores it while no
	// other host has the subnet. If nothing has changed, Renew should wake no
	// watcher.
	//
	// former are addresses that this host had before: the stored lease may name
	// one of them. Renew returns the lease as it is now; a zero Expiration means
	// that it does not end. ErrLost is final; the Manager repeats the call after
	// any other error.
	Renew(ctx context.Context, l Lease, a Attrs, former []netip.Addr) (Lease, error)

	// Check reads the stored lease, and fails with ErrConflict if it is not l: then
	// the Manager calls Renew. It writes nothing.
	Check(ctx context.Context, l Lease) error
}

// Hints guide Acquire. The zero value is valid.
type Hints struct {
	// Previous is the subnet of the last run. It is preferred if it is free.
	Previous netip.Prefix
	// Remembered are subnets that other hosts had. They are handed out last, as
	// those hosts may come back for them.
	Remembered []netip.Prefix
	// Unusable are networks that this host has beside the overlay; the value names
	// the interface. Acquire takes no subnet that overlaps one, except for Previous.
	Unusable map[netip.Prefix]string
	// StoreTimeout is how long Acquire waits for a store that does not answer;
	// 0: as long as ctx allows.
	StoreTimeout time.Duration
	// Report receives the outcome of each call to the store; the Manager sets it.
	Report func(error)
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
