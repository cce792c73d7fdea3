package bpf

import (
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Check sees what others have done to maps and links.
func TestCheck(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	says := func(want string) {
		t.Helper()
		if err := a.Do(a.path.Check); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Check = %v, want %q", err, want)
		}
	}
	says("")
	key := key4(b.subnet)
	var values []flannelPeer
	a.must(a.path.Peers.Lookup(key, &values))
	a.must(a.path.Peers.Delete(key))
	says("lacks 1 of 1 peers")
	values[0].Addr = inAddr(b.inner())
	a.must(a.path.Peers.Put(key, values))
	says("has 1 peers that it should not have, such as 10.5.2.0/24 at " + b.inner().String())
	values[0].Addr = inAddr(b.local())
	a.must(a.path.Peers.Put(key, values))
	says("")
	a.detachByHand(a.path.decapHook(a.link(netnstest.Uplink)))
	says("is detached")
	a.detachByHand(a.path.encapHook())
	says("the program on the device is detached")
}
