package subnettest

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// Store is a store in which hosts and commands write: etcd.
type Store interface {
	subnet.Keyspace
	subnet.Admin
}

// SourceHarness is a Source with an empty store behind it, and the back door to
// that store.
type SourceHarness struct {
	Source subnet.Source

	// Put stores a lease as its host does, over whatever is there.
	Put func(l subnet.Lease)
	// Corrupt makes the stored value of l's subnet one that does not parse.
	Corrupt func(l subnet.Lease)
	// Remove removes the lease of l's subnet.
	Remove func(l subnet.Lease)
	// SetConfig writes the network configuration.
	SetConfig func(config []byte)
	// Forget makes the store discard its history up to now.
	Forget func()
	// Requests returns how many round trips the Source has made.
	Requests func() int

	// Unreachable and Silent open Sources whose store refuses connections, and
	// accepts them but never answers. They put Limit on each round trip; 0 is for
	// the Fake, which has no limit of its own.
	Unreachable, Silent func(t *testing.T) subnet.Source
	Limit               time.Duration
}

// Harness is a Store that is empty, and the back door to it. Keys are relative to
// <prefix>/subnets/.
type Harness struct {
	Store Store

	// Put writes a key, over whatever is there; a ttl of 0 means no TTL.
	Put func(key string, value []byte, ttl time.Duration)
	// Get returns a key's value, nil if there is none, and whether it has a TTL.
	Get func(key string) (value []byte, hasTTL bool)
	// Delete deletes a key.
	Delete func(key string)
	// SetConfig, Forget, Requests and Limit are as in SourceHarness.
	SetConfig func(config []byte)
	Forget    func()
	Requests  func() int
	// QuietRenewal: an Update without a change wakes no watcher.
	QuietRenewal bool

	// Unreachable and Silent are as in SourceHarness.
	Unreachable, Silent func(t *testing.T) Store
	Limit               time.Duration
}

// source returns the harness of the Store as a Source.
func (h Harness) source() SourceHarness {
	return SourceHarness{
		Source: h.Store,
		Put: func(l subnet.Lease) {
			// A Lease of these tests always encodes.
			v, _ := subnet.EncodeLease(l)
			h.Put(l.Key(), v, longTTL)
		},
		Corrupt:     func(l subnet.Lease) { h.Put(l.Key(), []byte("{"), longTTL) },
		Remove:      func(l subnet.Lease) { h.Delete(l.Key()) },
		SetConfig:   h.SetConfig,
		Forget:      h.Forget,
		Requests:    h.Requests,
		Unreachable: func(t *testing.T) subnet.Source { return h.Unreachable(t) },
		Silent:      func(t *testing.T) subnet.Source { return h.Silent(t) },
		Limit:       h.Limit,
	}
}

const (
	// shortTTL is the shortest TTL of etcd 3.4 with etcdserver's election timeout.
	shortTTL = time.Second
	longTTL  = time.Hour
	// patience limits the wait for an expected event; only a failing test waits
	// that long.
	patience = 20 * time.Second
)

// host returns the lease of the n-th host, 10.5.n.0/24.
func host(n byte) subnet.Lease {
	return subnet.Lease{
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, n, 0}), 24),
		Attrs:  subnet.Attrs{PublicIP: netip.AddrFrom4([4]byte{192, 0, 2, n})},
	}
}

func vxlan(n byte, mac string) subnet.Lease {
	l := host(n)
	l.Attrs.BackendType = "vxlan"
	l.Attrs.BackendData = json.RawMessage(`{"VNI":1,"VtepMAC":"` + mac + `"}`)
	return l
}

func (h Harness) create(t *testing.T, l subnet.Lease, ttl time.Duration) subnet.Lease {
	t.Helper()
	l, err := h.Store.Create(t.Context(), l, ttl)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return l
}

func (h Harness) list(t *testing.T) ([]subnet.Lease, subnet.Position) {
	t.Helper()
	return list(t, h.Store)
}

func (h Harness) watch(t *testing.T, p subnet.Position) *watch {
	t.Helper()
	return startWatch(t, h.Store, p)
}

// find returns the listed lease of l's subnet.
func (h Harness) find(t *testing.T, l subnet.Lease) (subnet.Lease, bool) {
	t.Helper()
	leases, _ := h.list(t)
	for _, found := range leases {
		if found.Subnet == l.Subnet {
			return found, true
		}
	}
	return subnet.Lease{}, false
}

func list(t *testing.T, s subnet.Source) ([]subnet.Lease, subnet.Position) {
	t.Helper()
	leases, rev, err := s.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return leases, rev
}
