package subnet_test

import (
	"net/netip"
	"testing"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

const (
	ttl       = subnettest.TTL
	network16 = `{"Network": "10.5.0.0/16"}`
)

var (
	attrs, node, value = subnettest.Attrs, subnettest.Node, subnettest.Value
	prefix             = netip.MustParsePrefix
	parseConfig        = subnettest.ParseConfig
	options            = subnettest.Timing
	bubbleClock        = options.Clock
	us                 = attrs("192.0.2.1")
)

func newManager(t *testing.T, fake *subnettest.Fake, config string) *subnet.Manager {
	t.Helper()
	return fake.Manager(t, config)
}

func startHost(t *testing.T, fake *subnettest.Fake) *subnettest.Host {
	t.Helper()
	return fake.StartHost(t, network16, us)
}

func adoptHost(t *testing.T, fake *subnettest.Fake, own subnet.Lease, known []*subnet.Lease) *subnettest.Host {
	t.Helper()
	m := newManager(t, fake, network16)
	m.Adopt(own)
	if known != nil {
		m.AdoptPeers(known)
	}
	return subnettest.RunHost(t, fake, m, own)
}
