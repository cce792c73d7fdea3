package subnettest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// TTL is that of a test's leases.
const TTL = 24 * time.Hour

// Timing follows the time of a testing/synctest bubble.
var Timing = subnet.Timing{RenewMargin: time.Hour, Clock: func() time.Duration { return time.Duration(time.Now().UnixNano()) }}

// Attrs are those of a host without an identity.
func Attrs(ip string) subnet.Attrs { return subnet.Attrs{PublicIP: netip.MustParseAddr(ip)} }

// Node are the attributes of a host with an identity.
func Node(ip, id string) subnet.Attrs {
	a := Attrs(ip)
	a.NodeID, a.Hostname = id, "host-"+id
	return a
}

// Value is a lease's value as other flannels write it.
func Value(ip string) []byte { return fmt.Appendf(nil, `{"PublicIP":%q}`, ip) }

// Lease is a lease of a backend, with data if that is not empty.
func Lease(backend, data string) subnet.Lease {
	l := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.52.0/24"), Attrs: Attrs("1.2.3.4")}
	l.Attrs.BackendType = backend
	if data != "" {
		l.Attrs.BackendData = json.RawMessage(data)
	}
	return l
}

// OwnLease is Lease with fields that only this program writes.
func OwnLease(backend string) subnet.Lease {
	l := Lease(backend, "")
	l.Attrs.Extras = subnet.Extras{NodeID: "00ff", Hostname: "one", DataPath: "kernel"}
	return l
}

// ParseConfig parses a network configuration.
func ParseConfig(t *testing.T, config string) *subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Manager returns a Manager of f.
func (f *Fake) Manager(t *testing.T, config string) *subnet.Manager {
	t.Helper()
	return f.NewManager(ParseConfig(t, config), TTL, Timing)
}

// StartHost runs a host that acquires its lease first.
func (f *Fake) StartHost(t *testing.T, config string, a subnet.Attrs) *Host {
	t.Helper()
	m := f.Manager(t, config)
	l, err := m.Acquire(t.Context(), a, subnet.Hints{})
	if err != nil {
		t.Fatal(err)
	}
	return RunHost(t, f, m, l)
}
