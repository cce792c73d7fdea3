package daemon

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/subnet"
)

// keylessNetwork is a network without a key.
type keylessNetwork struct{ backend.Network }

// keyedNetwork is a network with a key.
type keyedNetwork struct {
	backend.Network
	attrs    subnet.Attrs
	rekeying func() // may be nil
}

func (n keyedNetwork) Rekey() (subnet.Attrs, error) {
	if n.rekeying != nil {
		n.rekeying()
	}
	return n.attrs, nil
}

// Without a network that has been ready, and without a key, there is nothing to replace.
func TestRekeyRefuses(t *testing.T) {
	d := New(&Options{}, "test", nil)
	r := newRekeyer(d.options, d.state)
	if _, err := r.rekey(t.Context()); !errors.Is(err, errNoNetwork) {
		t.Errorf("without a network: %v", err)
	}
	for ready, want := range map[bool]error{false: errNoNetwork, true: errNoKey} {
		d.state.update(func(s *progress) {
			s.network, s.ready, s.config = keylessNetwork{}, ready, &subnet.Config{BackendType: "vxlan"}
		})
		if _, err := r.rekey(t.Context()); !errors.Is(err, want) || d.WasReady() != ready {
			t.Errorf("ready %v: %v, want %v", ready, err, want)
		}
	}
}

// The network is not closed while its key is replaced.
func TestNetworkStaysDuringRekey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.supervise(r.join())
		called := false
		r.state.update(func(s *progress) {
			s.network = keyedNetwork{s.network, subnet.Attrs{}, func() {
				called = true
				if r.state.reading.TryLock() {
					t.Error("the network may be closed during Rekey")
					r.state.reading.Unlock()
				}
			}}
		})
		if _, err := newRekeyer(r.options, r.state).rekey(t.Context()); err != nil || !called {
			t.Errorf("rekey = %v, called: %v", err, called)
		}
	})
}

// A new key is in the store when rekey returns; without the store's answer it is
// not replaced.
func TestRekeyWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		r.supervise(m)
		before := r.stored(m.lease.Subnet)
		attrs := before.Attrs
		attrs.BackendData = json.RawMessage(`{"PublicKey":"new"}`)
		r.state.update(func(s *progress) { s.network = keyedNetwork{s.network, attrs, nil} })
		rekeyer := newRekeyer(r.options, r.state)
		done, err := rekeyer.rekey(t.Context())
		if err != nil || done.Subnet != m.lease.Subnet || string(done.After) != string(attrs.BackendData) {
			t.Errorf("rekey = %+v, %v", done, err)
		}
		if got := r.stored(m.lease.Subnet).Attrs.BackendData; string(got) != string(attrs.BackendData) {
			t.Errorf("the store has %s", got)
		}
		r.store.SetDown(errUnusable)
		time.Sleep(rigTTL) // until a renewal fails
		if _, err := rekeyer.rekey(t.Context()); err == nil || !strings.Contains(err.Error(), "the store is away") {
			t.Errorf("with the store away: %v", err)
		}
	})
}
