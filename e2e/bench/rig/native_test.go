package rig

import (
	"errors"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// FOU and bareudp have one format: a host with either understands a host with the other.
// Where the kernel lacks a module, the subject is left out with that reason.
func TestNativeTunnels(t *testing.T) {
	r := newRig(t)
	mixed := Subject{Name: "fou-bareudp", open: devices{udpOverhead, func(h *netnstest.Host, f inet.Family, self, routes int) error {
		if self == 0 {
			return addFOU(h, f, self, routes)
		}
		return addBareUDP(h, f, self, routes)
	}}.open}
	for _, f := range inet.Families {
		for _, s := range []Subject{subject(t, "fou"), subject(t, "bareudp"), mixed} {
			t.Run(s.Name+" "+f.String(), func(t *testing.T) {
				in := usual(3)
				in.Inside = f
				p, err := r.Pair(t.Context(), s, in)
				if refused := (*RefusedError)(nil); errors.As(err, &refused) {
					if !strings.Contains(refused.Reason, "module") {
						t.Errorf("left out: %s; want the module", refused.Reason)
					}
					t.Logf("left out: %s", refused.Reason)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				a, b := up(t, p)
				sent := bytesOf(t, p.hosts[0], linkName)
				if out, err := a.Command(t.Context(), "ping", "-c1", "-s1000", "-I", a.Addr.String(), b.Addr.String()).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if got := bytesOf(t, p.hosts[0], linkName) - sent; got < 1000 {
					t.Errorf("%d bytes crossed the link, want 1000 at least", got)
				}
			})
		}
	}
}
