package subnet

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Errors that every Registry returns, possibly wrapped; test with errors.Is.
var (
	// ErrNoConfig: the store answered and has no network configuration.
	ErrNoConfig = errors.New("no network configuration in the store")
	// ErrExists: another host took the key between our look and our write.
	ErrExists = errors.New("lease key already exists")
	// ErrLost: the key is gone or was written by somebody else since we last
	// saw it, so the lease is no longer ours to write.
	ErrLost = errors.New("lease was changed or deleted by another party")
	// ErrCompacted: the store has forgotten the history between the requested
	// revision and now (etcd v3 compaction, etcd v2 error 401). List again.
	ErrCompacted = errors.New("history was compacted")
)

// Rev is a point in a store's history: etcd v3's revision, etcd v2's
// modifiedIndex. On a Lease it is the revision of the last write to its key,
// on a List the revision the whole answer was read at. Revisions of different
// stores are not comparable.
type Rev int64

// Registry is a store of leases under one prefix. Implementations differ in
// wire protocol only; subnettest holds the suite that each must pass.
//
// All methods are safe for concurrent use, honour ctx, and put a time limit
// of their own on every round trip, so that a store that accepts connections
// and never answers is reported as an error. No method retries a write whose
// outcome is unknown: it returns the error, and the caller looks again.
//
// Keys and values that do not parse are left out of the answers, never turned
// into an error: one bad key must not hide the good ones. They are counted
// and logged once (see BadData).
type Registry interface {
	// Config returns the raw bytes of <prefix>/config.
	// Errors: ErrNoConfig, or the failure of the round trip.
	Config(ctx context.Context) ([]byte, error)

	// PublishConfig writes <prefix>/config if there is none, and reports
	// whether it did. It never replaces one that is there.
	PublishConfig(ctx context.Context, config []byte) (written bool, err error)

	// ReplaceConfig writes <prefix>/config, provided that it is still, byte for
	// byte, old. Errors: ErrLost.
	ReplaceConfig(ctx context.Context, old, config []byte) error

	// List returns every lease and reservation, and the revision at which that
	// was the truth. It costs one round trip whatever their number. A store
	// with no leases gives an empty list and no error; an error is never an
	// empty list.
	List(ctx context.Context) ([]Lease, Rev, error)

	// Overlapping returns the leases and reservations whose subnet overlaps p, that of
	// p among them. It costs one round trip, and in etcd's v3 API not more where there
	// are many leases.
	Overlapping(ctx context.Context, p netip.Prefix) ([]Lease, error)

	// Past returns subnets that had a key at some moment before rev and have none
	// now, as far as the store still tells. rev and leases are List's, so that it
	// need not look where nothing is gone; those of leases may be among what it
	// returns, and any more than once. What it costs is bounded: of a long history it sees
	// a part, and may miss a subnet that somebody had for a short time only. An error
	// comes with what was found before it.
	Past(ctx context.Context, rev Rev, leases []Lease) ([]netip.Prefix, error)

	// Create takes l.Subnet for ttl, provided that its key does not exist.
	// It returns l with Expiration and Rev filled in. Errors: ErrExists.
	Create(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)

	// Update extends l by ttl from now and stores l.Attrs, provided that the
	// key's last write is still l.Rev. Where the stored attributes are the same
	// already, and the store can do so, it extends the lease without a write to
	// the key, so that no watcher wakes. A lease with no time limit (Reserved)
	// stays without one. It returns l with Expiration, Reserved and Rev as they
	// now are. Errors: ErrLost.
	Update(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)

	// Reserve takes l.Subnet without a time limit, for the host that l.Attrs
	// names. Rev 0: provided that its key does not exist; any other: provided
	// that the key's last write is still l.Rev. It returns l with Reserved and
	// Rev as they now are. Errors: ErrExists, ErrLost.
	Reserve(ctx context.Context, l Lease) (Lease, error)

	// Delete removes l's key, provided that its last write is still l.Rev.
	// Errors: ErrLost.
	Delete(ctx context.Context, l Lease) error

	// Watch calls fn, from one goroutine and in the store's order, with the
	// changes that came after rev, and the revision to resume at. It calls fn
	// with no events when the store has taken the watch up, and may do so to move
	// the revision on. It returns only with an error:
	// ctx's, ErrCompacted, or the failure; after that fn is not called again,
	// and the caller may call Watch with the last revision that fn was given.
	// The Lease of a Removed event has no more than what its key says, and Rev.
	Watch(ctx context.Context, rev Rev, fn func(Rev, []Event)) error

	// BadCount is how many times a bad key or value was left out of an answer.
	BadCount() uint64

	// Close releases connections; calls under way return an error.
	Close() error
}
