package subnettest

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// Harness is one registry with an empty store behind it, and the back door to
// that store. Keys are relative to <prefix>/subnets/.
type Harness struct {
	Registry subnet.Registry

	// Put writes a key, whatever is there; a ttl of 0 means no time limit.
	Put func(key string, value []byte, ttl time.Duration)
	// Get returns a key's value, nil if there is none, and whether the store
	// will delete it in time.
	Get func(key string) (value []byte, hasTTL bool)
	// Delete deletes a key.
	Delete func(key string)
	// SetConfig writes <prefix>/config, whatever is there.
	SetConfig func(config []byte)
	// Forget makes the store lose its history up to now.
	Forget func()

	// BadCount is how often the registry has left out a bad key or value.
	BadCount func() uint64
	// Requests is how many round trips the registry has made.
	Requests func() int
	// QuietRenewal is whether an Update that changes nothing wakes no watcher.
	QuietRenewal bool

	// Unreachable and Silent are registries whose store refuses connections, and
	// accepts them but never answers. They put Limit on each round trip; 0 is for
	// the Fake, which has no limit of its own.
	Unreachable, Silent func(t *testing.T) subnet.Registry
	Limit               time.Duration
}

const (
	// shortTTL is as short as etcd 3.4 can do, with etcdserver's election timeout.
	shortTTL = time.Second
	longTTL  = time.Hour
	// patience is for what must happen; only a failing test waits for so long.
	patience = 20 * time.Second
)

// host is the lease of the n-th host, 10.5.n.0/24.
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
	l, err := h.Registry.Create(t.Context(), l, ttl)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return l
}

func (h Harness) list(t *testing.T) ([]subnet.Lease, subnet.Rev) {
	t.Helper()
	leases, rev, err := h.Registry.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return leases, rev
}

// find is the listed lease of l's subnet.
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

// delivery is one call of a watch's function.
type delivery struct {
	rev    subnet.Rev
	events []subnet.Event
}

// watch is a Watch under way.
type watch struct {
	t         *testing.T
	cancel    context.CancelFunc
	delivered chan delivery
	ended     chan error
	rev       subnet.Rev // as last delivered
	pending   []subnet.Event
}

func (h Harness) watch(t *testing.T, rev subnet.Rev) *watch {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watch{t: t, cancel: cancel, rev: rev, delivered: make(chan delivery, 100), ended: make(chan error, 1)}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		w.ended <- h.Registry.Watch(ctx, rev, func(rev subnet.Rev, events []subnet.Event) {
			select {
			case <-returned:
				t.Error("Watch called back after it had returned")
			default:
			}
			w.delivered <- delivery{rev, events}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-returned
	})
	return w
}

// next is the next event.
func (w *watch) next() subnet.Event {
	w.t.Helper()
	timeout := time.After(patience)
	for len(w.pending) == 0 {
		select {
		case d := <-w.delivered:
			if d.rev < w.rev {
				w.t.Fatalf("Watch went back from revision %d to %d", w.rev, d.rev)
			}
			w.rev, w.pending = d.rev, d.events
		case err := <-w.ended:
			w.t.Fatalf("Watch ended: %v", err)
		case <-timeout:
			w.t.Fatal("Watch delivered nothing")
		}
	}
	e := w.pending[0]
	w.pending = w.pending[1:]
	return e
}

// end is what Watch returns.
func (w *watch) end() error {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case <-w.delivered:
		case err := <-w.ended:
			return err
		case <-timeout:
			w.t.Fatal("Watch did not end")
		}
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: error is %v, want %v", what, got, want)
	}
}

// wantEvent checks type and subnet, and the attributes of an Added.
func wantEvent(t *testing.T, got subnet.Event, typ subnet.EventType, l subnet.Lease) {
	t.Helper()
	if got.Type != typ || got.Lease.Subnet != l.Subnet || typ == subnet.Added && !got.Lease.Attrs.Equal(l.Attrs) {
		t.Fatalf("event is %v %v %+v, want %v %v %+v", got.Type, got.Lease, got.Lease.Attrs, typ, l, l.Attrs)
	}
}
