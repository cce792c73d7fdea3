package wireguard

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/udpsock"
)

// The status has what the sockets of a tunnel in user space lack. The kernel's limit of
// sizes stands for that of a user without CAP_NET_ADMIN.
func TestLosses(t *testing.T) {
	c, err := udpsock.Open(udpsock.Config{Local: netip.MustParseAddrPort("127.0.0.1:0"), Buffer: math.MaxInt32, NoSegment: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &bind{families: inet.Families[:], socks: [2]sock{inet.IPv4: {conn: c}}}
	defer b.close()
	n := &network{tunnel: &userspaceTunnel{bind: b}, reason: "chosen"}
	for _, want := range []string{"chosen; off: ", "UDP_SEGMENT (switched off by configuration)", "sysctl -w net.core.rmem_max="} {
		if s := n.Stats(); !strings.Contains(s.Reason, want) {
			t.Errorf("reason %q, want %q in it", s.Reason, want)
		}
	}
}
