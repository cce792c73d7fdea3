package subnet

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/coreos/flannel/pkg/inet"
)

// ErrClosed is returned by the calls of a closed Source, possibly wrapped.
var ErrClosed = errors.New("store is closed")

// Errors of every store, possibly wrapped; test with errors.Is. Each is an
// answer of a store that can be reached.
var (
	// ErrNoConfig: the store has no network configuration.
	ErrNoConfig = errors.New("no network configuration in the store")
	// ErrExists: the key was created between the read and the write.
	ErrExists = errors.New("lease key already exists")
	// ErrConflict: the key was written or deleted since it was read.
	ErrConflict = errors.New("key was changed or deleted by another party")
	// ErrUnreadable: the key exists and its value is no lease.
	ErrUnreadable = errors.New("value of the key is no lease")
	// ErrCompacted: the store has discarded the history after the requested
	// revision (etcd v3: compaction; etcd v2: error 401). The caller lists again.
	ErrCompacted = errors.New("history was compacted")
	// ErrUnassigned: a store that assigns subnets has none for this host, or one
	// that it cannot use.
	ErrUnassigned = errors.New("no subnet is assigned to this host")
)

// Rev is a position in a store's history: etcd v3's revision, etcd v2's
// modifiedIndex. The Rev of a Lease is that of the last write to its key. The
// Rev of a list is that at which the whole list was read. Revisions of
// different stores are not comparable.
type Rev int64

// Position is a place in a store's history at which the whole list was read.
type Position struct {
	Rev Rev
	// History counts the histories that this client has seen; it begins with 1. A
	// store has another history after it was wiped or restored from a copy. 0 is
	// any history.
	History uint64
	// Resumes: after a failure other than ErrCompacted, Watch may begin again at the
	// last revision that it delivered. Otherwise the caller lists again.
	Resumes bool
}

// Source is a store of leases, as every host reads it. subnettest.Source is the
// suite that each implementation must pass.
//
// All methods are safe for concurrent use and honour ctx. Each round trip has a
// time limit of its own: a store that accepts connections and never answers
// gives an error.
//
// A key or value that does not parse is left out of the answers and is never an
// error: one bad key must not hide the good ones. BadData counts and logs it.
type Source interface {
	// Config returns the network configuration as it was written.
	// Errors: ErrNoConfig, or the failure of the round trip.
	Config(ctx context.Context) ([]byte, error)

	// List returns every lease and reservation, and the position of the answer.
	// It costs one round trip for any number of leases. A store without leases
	// gives an empty list and no error; a failure is never an empty list.
	List(ctx context.Context) ([]Lease, Position, error)

	// Watch calls fn with the changes after p and their revision. The calls come
	// from one goroutine, in the store's order. Watch calls fn without events when
	// the store has accepted the watch, and may do so later to advance the
	// revision.
	//
	// Watch returns only with an error: ctx's, ErrCompacted, or the failure. It
	// does not call fn after it has returned. ErrCompacted also means that the
	// store may have another history than p's: some answer, to any call, came from
	// another cluster, from a later term, or from an earlier term or revision than
	// one before. After a failure the store may have another history too, although
	// no answer shows it: the caller lists again, unless p resumes.
	//
	// The Lease of a Removed event holds the subnets of the key, and Rev.
	Watch(ctx context.Context, p Position, fn func(Rev, []Event)) error

	// BadCount returns how many times a bad key or value was left out.
	BadCount() uint64

	// Close releases connections. Calls in progress and later ones return an
	// error.
	Close() error
}

// Keyspace is a Source in which the hosts themselves write their leases, by
// compare-and-swap and with a TTL: etcd. subnettest.Keyspace is its suite.
//
// A write to an existing key takes the lease as it was last read or written, and
// compares its Rev, its key and its attributes with what is stored. The revision
// alone is not enough: in another history, another host's key may have it.
//
// No method repeats a write of unknown outcome: it returns the error, and the
// caller reads again. No method writes a key or value that does not parse.
type Keyspace interface {
	Source

	// Overlapping returns the leases and reservations that overlap l in one of the
	// families, l's key included. It costs one round trip. In etcd's v3 API the cost
	// does not grow with the number of leases if l has an IPv4 part only.
	Overlapping(ctx context.Context, l Lease) ([]Lease, error)

	// Get returns the lease of l's key as it is now; List gives its Expiration.
	// Errors: ErrConflict if there is none, ErrUnreadable.
	Get(ctx context.Context, l Lease) (Lease, error)

	// Create writes l with the given TTL if its key does not exist. It returns l
	// with Expiration, Rev and Created set. Errors: ErrExists.
	Create(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)

	// Update extends stored to ttl from now and gives it the attributes a. If they
	// are equal to the stored ones and the store allows it, Update does not write
	// the key, so that no watcher wakes. A reservation stays without a TTL. Update
	// returns the lease as it is now. Errors: ErrConflict.
	Update(ctx context.Context, stored Lease, a Attrs, ttl time.Duration) (Lease, error)

	// Move replaces stored's key by l's in one transaction, so that a part that both
	// have is never gone. It writes l's attributes, extends the lease to ttl from now,
	// and returns it as it is then. Watchers see the removal first. A reservation stays
	// without a TTL. Errors: ErrConflict, if stored is not as it was read; ErrExists,
	// if l's key exists; errors.ErrUnsupported, where leases have one family only.
	Move(ctx context.Context, stored, l Lease, ttl time.Duration) (Lease, error)

	// Delete removes stored's key. Errors: ErrConflict.
	Delete(ctx context.Context, stored Lease) error
}

// Admin holds the writes of an operator's commands; no daemon needs it, except
// for PublishConfig at its start. subnettest.Admin is its suite.
type Admin interface {
	// PublishConfig writes the network configuration if there is none, and
	// reports whether it did.
	PublishConfig(ctx context.Context, config []byte) (written bool, err error)

	// ReplaceConfig writes the network configuration if the stored one equals
	// old, byte for byte. Errors: ErrConflict.
	ReplaceConfig(ctx context.Context, old, config []byte) error

	// Reserve makes l a reservation: without a TTL, for the host that l.Attrs names.
	// If l.Rev is 0, the key must not exist; otherwise it must be stored as l.
	// Reserve returns l with Reserved, Rev and Created as they are now.
	// Errors: ErrExists, ErrConflict.
	Reserve(ctx context.Context, l Lease) (Lease, error)

	// Delete is Keyspace's.
	Delete(ctx context.Context, stored Lease) error
}

// ConfigNotifier is a Source that announces changes of the configuration: etcd's v3
// API.
type ConfigNotifier interface {
	// NotifyConfig calls changed when the store has accepted the watch, and after each
	// write of the configuration. It returns only with an error: ctx's, or the
	// failure. A change may be missed after a failure: the caller reads again.
	NotifyConfig(ctx context.Context, changed func()) error
}

// Expirer is a store whose List leaves Expiration unset, but which can find it
// out: etcd's v3 API, at two round trips for each lease.
type Expirer interface {
	// FillExpirations sets the Expiration of leases that List returned. It stays
	// zero for a lease that has ended in between.
	FillExpirations(ctx context.Context, leases []Lease) error
}

// IsAnswer reports whether err shows that the store can be reached: nil, or a
// refusal.
func IsAnswer(err error) bool {
	if err == nil {
		return true
	}
	for _, answer := range []error{ErrNoConfig, ErrExists, ErrConflict, ErrUnreadable, ErrCompacted, ErrUnassigned, ErrLost, ErrPartLost} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

// Errors of a Holder, possibly wrapped; test with errors.Is.
var (
	// ErrLost: another host has the subnet. The lease cannot be renewed.
	ErrLost = errors.New("lease is lost to another host")
	// ErrPartLost: another host has the IPv6 subnet of a lease of both families. Acquire
	// takes another one; the IPv4 subnet stays.
	ErrPartLost = errors.New("IPv6 subnet is lost to another host")
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
	// lease that it returns is stored, with these attributes. report receives the
	// outcome of each call to the store.
	// Errors: ErrFull, ErrAddressInUse, ErrCloned, ErrStoreTimeout, or ctx's.
	Acquire(ctx context.Context, a Attrs, h Hints, report func(error)) (Lease, error)

	// Renew makes one attempt to store the attributes a with the lease l and, if
	// the lease has a TTL, to extend it. The stored lease may differ from l:
	// another party may have written or deleted it. Renew restores it while no
	// other host has the subnet. If nothing has changed, Renew should wake no
	// watcher.
	//
	// former are addresses that this host had before: the stored lease may name
	// one of them. Renew returns the lease as it is now; a zero Expiration means
	// that it does not end. ErrLost and ErrPartLost are final; the Manager repeats the
	// call after any other error.
	Renew(ctx context.Context, l Lease, a Attrs, former []netip.Addr) (Lease, error)

	// Check reads the stored lease, and fails with ErrConflict if it is not l: then
	// the Manager calls Renew. It writes nothing.
	Check(ctx context.Context, l Lease) error
}

// Hints guide Acquire. The zero value is valid.
type Hints struct {
	// Previous and PreviousIPv6 are the subnets of the last run. They are preferred
	// if they are free.
	Previous, PreviousIPv6 netip.Prefix
	// Without are families that this host cannot use: it takes no subnet of them
	// although the configuration enables them.
	Without []inet.Family
	// Remembered are subnets that other hosts had. They are handed out last, as
	// those hosts may come back for them.
	Remembered []netip.Prefix
	// Unusable are networks that this host has beside the overlay; the value names
	// the interface. Acquire takes no subnet that overlaps one, except for Previous.
	Unusable map[netip.Prefix]string
	// StoreTimeout is how long Acquire waits for a store that does not answer;
	// 0: as long as ctx allows.
	StoreTimeout time.Duration
}
