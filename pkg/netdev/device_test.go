package netdev

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
)

func TestLock(t *testing.T) {
	netnstest.Require(t)
	lab := netnstest.New(t)
	a, b := lab.Host("a"), lab.Host("b")
	claim := func(h *netnstest.Host, device string) (close func() error, err error) {
		err = h.Do(func() error {
			c, err := Lock(device)
			if err == nil {
				close = c.Close
			}
			return err
		})
		return close, err
	}
	first, err := claim(a, device)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(a, device); !errors.Is(err, ErrLocked) {
		t.Errorf("second claim: %v", err)
	}
	for _, other := range []struct {
		host   *netnstest.Host
		device string
	}{{a, "flannel.2"}, {b, device}} {
		c, err := claim(other.host, other.device)
		if err != nil {
			t.Errorf("claim of %s on host %s: %v", other.device, other.host.Name(), err)
			continue
		}
		if err := c(); err != nil {
			t.Error(err)
		}
	}
	if err := first(); err != nil {
		t.Fatal(err)
	}
	if c, err := claim(a, device); err != nil {
		t.Errorf("claim after Close: %v", err)
	} else if err := c(); err != nil {
		t.Error(err)
	}
}

func TestDisableTxChecksum(t *testing.T) {
	b := newBench(t)
	feature := func() string {
		out, err := b.host.Command(t.Context(), "ethtool", "-k", device).Output()
		b.check(err)
		for line := range strings.Lines(string(out)) {
			if name, value, _ := strings.Cut(strings.TrimSpace(line), ": "); name == "tx-checksum-ip-generic" {
				return value
			}
		}
		t.Fatalf("no tx-checksum-ip-generic in\n%s", out)
		return ""
	}
	if feature() != "on" {
		t.Fatalf("checksum offload is %q before, want on", feature())
	}
	b.check(b.host.Do(func() error { return DisableTxChecksum(device) }))
	if feature() != "off" {
		t.Errorf("checksum offload is %q after, want off", feature())
	}
	if err := b.host.Do(func() error { return DisableTxChecksum("no-such-device") }); err == nil {
		t.Error("no error for a device that does not exist")
	}
}

func TestOffloadsOf(t *testing.T) {
	b := newBench(t)
	ask := func(name string) (o Offloads, err error) {
		return o, b.host.Do(func() error {
			o, err = OffloadsOf(name)
			return err
		})
	}
	value := map[bool]string{false: "off", true: "on"}
	for _, want := range []Offloads{{}, {GSO: true}, {TSO: true, GSO: true}, {GRO: true, GSO: true}, {TSO: true, GRO: true, GSO: true}} {
		if out, err := b.host.Command(t.Context(), "ethtool", "-K", device, "tso", value[want.TSO], "gro", value[want.GRO], "gso", value[want.GSO]).CombinedOutput(); err != nil {
			t.Fatalf("ethtool: %v\n%s", err, out)
		}
		want.Driver = "vxlan"
		if got, err := ask(device); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if got, err := ask("lo"); err != nil || got.Driver != "" {
		t.Errorf("lo: %+v, %v", got, err)
	}
	if _, err := ask("no-such-device"); err == nil {
		t.Error("no error for a device that does not exist")
	}
}

func TestTurn(t *testing.T) {
	b := newBench(t)
	if out, err := b.host.Command(t.Context(), "ethtool", "-K", device, "tso", "on", "gro", "off", "gso", "on").CombinedOutput(); err != nil {
		t.Fatalf("ethtool: %v\n%s", err, out)
	}
	b.check(b.host.Do(func() error { return errors.Join(DisableTSO(device), EnableGRO(device)) }))
	b.check(b.host.Do(func() error {
		o, err := OffloadsOf(device)
		if o.TSO || !o.GRO || !o.GSO {
			t.Errorf("the offloads are %+v, want GRO and GSO", o)
		}
		return err
	}))
}

const device = "flannel.1"

// bench is a host with a VXLAN device.
type bench struct {
	t    testing.TB
	host *netnstest.Host
}

func newBench(t testing.TB) *bench {
	t.Helper()
	netnstest.Require(t)
	b := &bench{t, netnstest.New(t).Host("a")}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	b.check(b.host.Netlink().LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472}))
	b.host.Up(device)
	return b
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}
