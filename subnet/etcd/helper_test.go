package etcd_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

const (
	ttl       = 24 * time.Hour
	network16 = `{"Network": "10.5.0.0/16"}`
	twoLeft   = `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.2.0"}`
)

var (
	options = subnet.Timing{RenewMargin: time.Hour, Clock: bubbleClock}
	us      = attrs("192.0.2.1")
)

// bubbleClock follows a synctest bubble's time.
func bubbleClock() time.Duration { return time.Duration(time.Now().UnixNano()) }

func attrs(ip string) subnet.Attrs { return subnet.Attrs{PublicIP: netip.MustParseAddr(ip)} }

// node is a host with an identity.
func node(ip, id string) subnet.Attrs {
	a := attrs(ip)
	a.NodeID, a.Hostname = id, "host-"+id
	return a
}

func value(ip string) []byte { return fmt.Appendf(nil, `{"PublicIP":%q}`, ip) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func parseConfig(t *testing.T, config string) *subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newManager(t *testing.T, fake *subnettest.Fake, config string) *subnet.Manager {
	t.Helper()
	return fake.NewManager(parseConfig(t, config), ttl, options)
}

// startNode runs a host that acquires its lease first.
func startNode(t *testing.T, fake *subnettest.Fake, a subnet.Attrs) *subnettest.Host {
	t.Helper()
	m := newManager(t, fake, network16)
	l, err := m.Acquire(t.Context(), a, subnet.Hints{})
	if err != nil {
		t.Fatal(err)
	}
	return subnettest.RunHost(t, fake, m, l)
}
