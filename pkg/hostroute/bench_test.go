package hostroute

import (
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// BenchmarkPeer looks up the route to one peer.
func BenchmarkPeer(b *testing.B) {
	netnstest.Require(b)
	h := netnstest.New(b).Host("a")
	var r *Resolver
	if err := h.Do(func() (err error) { r, err = Open(network, own); return err }); err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Peer(peer); err != nil {
			b.Fatal(err)
		}
	}
}
