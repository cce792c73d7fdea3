package etcd_test

import (
	"net/netip"
	"testing"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

const (
	ttl       = subnettest.TTL
	network16 = `{"Network": "10.5.0.0/16"}`
	twoLeft   = `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.2.0"}`
)

var (
	attrs, node, value = subnettest.Attrs, subnettest.Node, subnettest.Value
	prefix             = netip.MustParsePrefix
	parseConfig        = subnettest.ParseConfig
	us                 = attrs("192.0.2.1")
)

func newManager(t *testing.T, fake *subnettest.Fake, config string) *subnet.Manager {
	t.Helper()
	return fake.Manager(t, config)
}

func startNode(t *testing.T, fake *subnettest.Fake, a subnet.Attrs) *subnettest.Host {
	t.Helper()
	return fake.StartHost(t, network16, a)
}
