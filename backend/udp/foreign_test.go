package udp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A Network that another device has, such as docker0's own, is an error that names
// the device.
func TestNetworkOfAnotherDeviceNamesIt(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	h.Bridge("br-compose", netip.MustParsePrefix("10.5.0.1/16"), 0)
	b := backendOf(t, h, "offload", "")
	err := h.Do(func() error {
		up, err := b.Up(t.Context(), lease("10.5.1.0/24", h.Addr().Addr().String()))
		if err == nil {
			err = up.Close()
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "10.5.0.0/16 dev br-compose") {
		t.Errorf("got %v", err)
	}
}
