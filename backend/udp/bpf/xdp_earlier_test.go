package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Offsets in struct xdp_md (linux/bpf.h).
const (
	xdpData    = 0
	xdpDataEnd = 4
	xdpMeta    = 8
)

// earlierXDP is decap_xdp of an earlier release, without its checks: it removes the
// headers of a datagram and adds metadata without the source.
func earlierXDP(device int) asm.Instructions {
	const removed, meta, magic = 28, 8, 0x666c6e31
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, xdpData, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, xdpDataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 14+removed),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R4, asm.R2, 14+20+2, asm.Half), // the UDP port
		asm.JNE.Imm(asm.R4, int32(htons(port)), "pass"),
		asm.LoadMem(asm.R7, asm.R2, 0, asm.Word), // Ethernet's addresses
		asm.LoadMem(asm.R8, asm.R2, 4, asm.Word),
		asm.LoadMem(asm.R9, asm.R2, 8, asm.Word),

		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, removed),
		asm.FnXdpAdjustHead.Call(),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, -meta),
		asm.FnXdpAdjustMeta.Call(),

		asm.LoadMem(asm.R2, asm.R6, xdpData, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, xdpDataEnd, asm.Word),
		asm.LoadMem(asm.R5, asm.R6, xdpMeta, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 14),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.StoreMem(asm.R2, 0, asm.R7, asm.Word),
		asm.StoreMem(asm.R2, 4, asm.R8, asm.Word),
		asm.StoreMem(asm.R2, 8, asm.R9, asm.Word),
		asm.StoreImm(asm.R2, 12, int64(htons(0x0800)), asm.Half),
		asm.Mov.Reg(asm.R4, asm.R5),
		asm.Add.Imm(asm.R4, meta),
		asm.JGT.Reg(asm.R4, asm.R2, "pass"),
		asm.StoreImm(asm.R5, 0, magic, asm.Word),
		asm.StoreImm(asm.R5, 4, int64(device), asm.Word),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), // XDP_PASS
		asm.Return(),
	}
}

// During an upgrade, decap gets what decap_xdp of the earlier release has unwrapped.
func TestEarlierXDP(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	b.segmented(true)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "GPL", Instructions: earlierXDP(b.device)})
	b.must(err)
	t.Cleanup(func() { b.must(program.Close()) })
	b.must(b.path.hooks[xdpLink(b.link(netnstest.Uplink))].Replace(program))

	device, w := listenInner(b), newWire(a, b, netnstest.Uplink, netnstest.Uplink)
	f := frame{outerSource: a.local(), outerDestination: b.local(), source: a.inner(), destination: b.inner(), payload: []byte("good")}
	counted := b.statsOf(a.subnet).RxPackets
	w.send(f.bytes())
	if _, text := device.receive(t); text != "good" {
		t.Errorf("received %q", text)
	}
	if n := b.statsOf(a.subnet).RxPackets - counted; n != 1 {
		t.Errorf("%d packets are counted, want 1", n)
	}
	f.source = b.inner().Next()
	w.send(f.bytes())
	b.refuses(1, "unknown_outer_source")
}
