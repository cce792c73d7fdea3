package bpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// Without BPF_F_ADJ_ROOM_DECAP_L3_* the programs leave datagrams of the other family to
// the socket. Packets of the datagram's family stay in the kernel.
func TestOldMixed(t *testing.T) {
	for _, f := range append([]families{{}}, laterFamilies...) {
		for _, tso := range []string{"on", "off"} {
			t.Run(f.String()+" tso "+tso, func(t *testing.T) {
				_, hosts := newHostsOf(t, f, true, true, true)
				a, b := hosts[0], hosts[1]
				run(t, b.Host, "ethtool", "-K", netnstest.Uplink, "gro", "on", "tso", tso)
				b.attachTo(netnstest.Uplink)
				toSocket := make(chan []byte, 1)
				b.mu.Lock()
				b.odd = func(p []byte) { toSocket <- bytes.Clone(p) }
				b.mu.Unlock()
				device, w := listenInner(b), newWire(a, b, netnstest.Uplink, netnstest.Uplink)
				sent := frame{outerSource: a.local(), outerDestination: b.local(), source: a.inner(), destination: b.inner()}
				w.send(sent.bytes())
				if f.inner == f.outer {
					if _, text := device.receive(t); text != "hello" {
						t.Errorf("the device got %q", text)
					}
					return
				}
				if got := wait(t, toSocket); !bytes.HasSuffix(sent.bytes(), got) || len(got) < f.inner.HeaderLen() {
					t.Errorf("the socket got % x", got)
				}
				if n, err := b.path.Passed(); err != nil || n != 0 {
					t.Errorf("%d datagrams count as past the programs, %v", n, err)
				}
			})
		}
	}
}

// A host's datagrams come by either of its addresses, whatever family those to it have.
func TestBothAddresses(t *testing.T) {
	for _, inner := range inet.Families {
		t.Run(fmt.Sprint(inner), func(t *testing.T) {
			f := families{inner, inet.IPv6}
			families{inner, inner.Other()}.require(t)
			_, hosts := newHostsOf(t, f, false, false, false)
			a, b := hosts[0], hosts[1]
			c := b.config()
			c.Locals = [2]netip.Addr{b.Addr().Addr(), b.IPv6Addr().Addr()}
			b.load(c)
			p := Peer{Subnet: a.subnet, Addrs: [2]netip.Addr{a.Addr().Addr(), a.IPv6Addr().Addr()}, Outer: inet.IPv6, Kernel: true}
			index := uint32(b.link(netnstest.Uplink))
			p.Uplinks = [2][MaxUplinks]uint32{{index}, {index}}
			b.must(b.path.Set([]Peer{p}))
			b.must(b.Do(func() error { return b.path.Attach([]int{int(index)}) }))
			if got := b.path.known(); len(got) != 1 || got[0] != p {
				t.Errorf("the table has %+v, want %+v", got, p)
			}
			device, w := listenInner(b), newWire(a, b, netnstest.Uplink, netnstest.Uplink)
			for i, from := range p.Addrs {
				w.send(frame{outerSource: from, outerDestination: c.Locals[i], source: a.inner(), destination: b.inner()}.bytes())
				if _, text := device.receive(t); text != "hello" {
					t.Errorf("from %v the device got %q", from, text)
				}
			}
			if n := b.statsOf(a.subnet).RxPackets; n != 2 {
				t.Errorf("%d packets counted, want 2", n)
			}

			// Each address has interfaces of its own.
			p.Uplinks[inet.IPv4] = [MaxUplinks]uint32{index + 1}
			b.must(b.path.Set([]Peer{p}))
			w.send(frame{outerSource: p.Addrs[0], outerDestination: c.Locals[0], source: a.inner(), destination: b.inner()}.bytes())
			b.refuses(1, "wrong_interface")
		})
	}
}
