package e2e

import (
	"flag"
	"testing"
	"time"
)

var etcdAway = flag.Duration("etcd-away", 5*time.Second, "TestEtcdAway: for how long")

// No packet is lost while etcd is away, and the daemon reports soon that it is
// back.
func TestEtcdAway(t *testing.T) {
	for _, path := range []string{"plain", "offload", "kernel"} {
		t.Run(path, func(t *testing.T) {
			r := newFaultRig(t, 2, false, "-udp-datapath="+path)
			began := time.Now()
			r.etcd.Stop()
			<-time.After(*etcdAway)
			for _, f := range r.flows {
				f.works(t)
				if err := f.lost(began, time.Now()); err != nil {
					t.Errorf("while etcd is away: %v", err)
				}
			}
			r.etcd.Restart()
			took := r.converge("etcd was away")
			for _, f := range r.flows {
				f.works(t)
				if err := f.lost(began, time.Now()); err != nil {
					t.Error(err)
				}
			}
			t.Logf("no packet lost of %d in %v; tables equalled the store after %v",
				r.sent(), time.Since(began).Round(time.Second), took.Round(time.Millisecond))
		})
	}
}

// sent is how many packets the load has sent.
func (r *faultRig) sent() (n uint64) {
	for _, f := range r.flows {
		f.mu.Lock()
		n += f.next
		f.mu.Unlock()
	}
	return n
}
