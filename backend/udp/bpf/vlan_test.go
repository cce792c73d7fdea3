package bpf

import (
	"fmt"
	"io"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/tchook"
)

// TestTagged sends frames with a VLAN's tag by a cable that is an uplink itself.
func TestTagged(t *testing.T) {
	const (
		trunk  = "trunk"
		nobody = 30      // has no device
		first  = 5 << 13 // IEEE 802.1Q: VLAN 0 with a priority, which is no VLAN
	)
	lab, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	lab.Wire(a.Host, trunk, b.Host, trunk, 0)
	onDevice, device := b.sniff(deviceName), listenInner(b)
	w := newWire(a, b, trunk, trunk)
	f := frame{outerSource: a.local(), outerDestination: b.local(), source: a.inner(), destination: b.inner()}
	send := func(tag uint16, text string) {
		t.Helper()
		tagger := a.pushTag(trunk, tag)
		f.payload = []byte(text)
		w.send(f.bytes())
		a.must(tagger.Close())
	}
	for _, xdp := range []bool{false, true} {
		for _, beside := range []bool{true, false} { // beside the frame, as from network cards, or in it
			t.Run(fmt.Sprintf("xdp %v tag beside frame %v", xdp, beside), func(t *testing.T) {
				run(t, a.Host, "ethtool", "-K", trunk, "tx-vlan-offload", onOff[beside])
				run(t, b.Host, "ethtool", "-K", trunk, "gro", "on", "tso", onOff[!xdp])
				b.attachTo(trunk)
				b.hasDecapXDP(trunk, xdp)
				before := b.statsOf(a.subnet).RxPackets

				send(nobody, "nobody's")
				if n := b.statsOf(a.subnet).RxPackets - before; n != 0 && !(xdp && beside) {
					t.Errorf("the path counts %d packets of a VLAN that is not there", n)
				}
				// A wire keeps the order.
				f.payload = []byte("untagged")
				w.send(f.bytes())
				if _, text := device.receive(t); text != "untagged" {
					t.Errorf("the device got %q", text)
				}

				before = b.statsOf(a.subnet).RxPackets
				send(first, "priority")
				onDevice("priority")
				if _, text := device.receive(t); text != "priority" {
					t.Errorf("the device got %q", text)
				}
				if n := b.statsOf(a.subnet).RxPackets - before; n != 1 {
					t.Errorf("the path counts %d packets of a priority, want 1", n)
				}
			})
		}
	}
	untouched(t, b)
}

var onOff = map[bool]string{true: "on", false: "off"}

// pushTag gives all that an interface sends a tag.
func (h *host) pushTag(name string, tag uint16) io.Closer {
	h.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R2, int32(htons(unix.ETH_P_8021Q))),
			asm.Mov.Imm(asm.R3, int32(tag)),
			asm.FnSkbVlanPush.Call(),
			asm.Mov.Imm(asm.R0, 0), // TCX_PASS
			asm.Return(),
		},
	})
	h.must(err)
	f, err := tchook.AddFilter(h.Netlink(), tchook.Key{Egress: true, Index: h.link(name)}, p)
	h.must(err)
	h.must(p.Close())
	return f
}
