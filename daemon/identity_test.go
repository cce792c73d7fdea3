package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Of two hosts with one address, one or both have no usable node id. Whichever starts
// first keeps its lease; the other one fails with the remedy. Nobody overwrites the key.
func TestSameAddressWithoutNodeID(t *testing.T) {
	spoil := map[string]func(r *rig){
		"folder cannot be written": func(r *rig) {
			r.options.stateDir = filepath.Join(os.DevNull, "state")
			r.joiner.identity.dir = r.options.stateDir
		},
		"id is damaged": func(r *rig) {
			if err := errors.Join(os.MkdirAll(r.options.stateDir, 0o700),
				os.WriteFile(filepath.Join(r.options.stateDir, "node-id"), []byte("?"), 0o600)); err != nil {
				r.Fatal(err)
			}
		},
	}
	for name, spoil := range spoil {
		for _, spoilt := range []struct{ first, second bool }{{true, false}, {false, true}, {true, true}} {
			t.Run(fmt.Sprintf("%s, %+v", name, spoilt), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					first := newRig(t)
					second := newRigAt(t, first.store, first.state.get().sides[inet.IPv4].publicIP.String())
					if spoilt.first {
						spoil(first)
					}
					if spoilt.second {
						spoil(second)
					}
					refusesSecond(t, first, second)
				})
			})
		}
	}
}

func refusesSecond(t *testing.T, first, second *rig) {
	t.Helper()
	m := first.join()
	s := first.supervise(m)
	written := first.stored(m.lease.Subnet).Rev
	_, err := second.joiner.join(t.Context())
	if !errors.Is(err, subnet.ErrAddressInUse) || !strings.Contains(err.Error(), "-public-ip") {
		t.Errorf("the second joined with %v", err)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	now := first.stored(m.lease.Subnet)
	if !now.Attrs.Equal(m.lease.Attrs) || now.Rev > written+2 { // the challenge and its answer
		t.Errorf("the lease was %+v, is %+v", m.lease, now)
	}
	s.end(t)
}

// A run without a usable state folder finds the lease of the run before.
func TestLeaseOfARunWithoutNodeID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		again := newRigAt(t, r.store, r.state.get().sides[inet.IPv4].publicIP.String())
		for _, r := range []*rig{r, again} {
			r.joiner.identity.dir = filepath.Join(os.DevNull, "state")
		}
		one, two := r.join(), again.join()
		if one.lease.Subnet != two.lease.Subnet || one.lease.Attrs.NodeID == "" || two.lease.Attrs.NodeID == one.lease.Attrs.NodeID {
			t.Errorf("first %+v, then %+v", one.lease, two.lease)
		}
	})
}
