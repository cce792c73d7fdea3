package bpf

import (
	"net/netip"
	"testing"
)

// A datagram of a peer counts only if it comes by an interface that this host's
// routes to the peer name.
func TestWrongInterface(t *testing.T) { eachFamilies(t, testWrongInterface) }

func testWrongInterface(t *testing.T, f families) {
	for _, tso := range []string{"on", "off"} {
		lab, hosts := newHostsOf(t, f, false, true, true)
		a, b := hosts[0], hosts[1]
		const other = "other"
		lab.Wire(a.Host, other, b.Host, other, 3000)
		run(t, b.Host, "ethtool", "-K", other, "gro", "on", "tso", tso)
		uplinks := b.uplinks
		b.attachTo(other, "eth0")
		b.hasDecapXDP(other, tso == "off")
		b.uplinks = uplinks
		b.set(b.path.known()...)
		device, w := listenInner(b), newWire(a, b, other, other)
		forged := frame{
			outerSource: a.local(), outerDestination: b.local(),
			source: a.inner(), destination: b.inner(), payload: []byte("forged"),
		}
		w.send(forged.bytes())
		b.refuses(1, "wrong_interface")
		// Several interfaces may lead to a peer.
		b.uplinks[1] = uint32(b.link(other))
		b.set(b.path.known()...)
		good := forged
		good.payload = []byte("good")
		w.send(good.bytes())
		if _, text := device.receive(t); text != "good" {
			t.Errorf("tso %s: received %q", tso, text)
		}
	}
}

// With peers missing in the table, the socket decides about a packet that the
// programs would refuse as forged.
func TestIncomplete(t *testing.T) { eachFamilies(t, testIncomplete) }

func testIncomplete(t *testing.T, f families) {
	for name, segmented := range map[string]bool{"after GRO": false, "before GRO": true} {
		t.Run(name, func(t *testing.T) { testIncompleteTable(t, f, segmented) })
	}
}

func testIncompleteTable(t *testing.T, f families, segmented bool) {
	_, hosts := newHostsOf(t, f, false, true, true, true)
	a, b, c := hosts[0], hosts[1], hosts[2]
	b.segmented(segmented)
	b.must(b.path.Apply(nil, []netip.Prefix{a.subnet}))
	b.must(b.path.SetIncomplete(true))
	run(t, a.Host, "ping", "-c", "1", "-w", "5", b.inner().String())
	// On a loaded machine ping sends again.
	if in, out := b.received.Load(), b.sent.Load(); in < 1 || out < 1 {
		t.Errorf("user space received %d and sent %d packets of the missing peer, want 1 at least", in, out)
	}
	run(t, c.Host, "ping", "-c", "1", "-w", "5", b.inner().String())
	untouched(t, c)
	b.must(b.path.SetIncomplete(false))
	run(t, a.Host, "sh", "-c", "! ping -c 1 -W 0.2 "+b.inner().String())
	b.refuses(1, "unknown_outer_source")
}
