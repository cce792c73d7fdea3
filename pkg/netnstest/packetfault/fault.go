// Package packetfault plants faults of network devices, drivers and hypervisors into
// hosts of a lab: programs that lose or change some of the packets that a device
// receives.
//
//	fault := packetfault.Plant(t, host, "eth0", packetfault.SuperPacket(), packetfault.Drop())
//
// The parts but the last are conditions. The last is what happens to packets that all
// conditions hold for.
package packetfault

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Fields of struct __sk_buff (linux/bpf.h), by offset.
const (
	skbLen     = 0
	skbGSOSize = 176
)

// Header is an IP header without options and extension headers.
type Header struct {
	// Offset is that in the frame.
	Offset int32
	IPv6   bool
}

// Len returns the header's length.
func (h Header) Len() int32 { return h.fields().size }

// fields of an IP header, by offset from its beginning.
type fields struct {
	version, size, length, protocol, addresses int32
	// counted are the bytes of the header that length counts.
	counted int32
	// ecn are the bits of the ECN codepoint in the second byte (RFC 3168).
	ecn int32
}

func (h Header) fields() fields {
	if h.IPv6 {
		return fields{version: 6, size: 40, length: 4, protocol: 6, addresses: 8, ecn: 0x30}
	}
	return fields{version: 4, size: 20, length: 2, protocol: 9, addresses: 12, counted: 20, ecn: 0x03}
}

// A condition jumps to passes for packets that it does not hold for, and to acts for
// those that need no further condition. Register 6 has the context.
const (
	passes = "passes"
	acts   = "acts"
)

// Part is a part of a fault: a condition, or what happens.
type Part asm.Instructions

// SuperPacket holds for packets that a device would segment, or that were merged.
func SuperPacket() Part {
	return Part{asm.LoadMem(asm.R0, asm.R6, skbGSOSize, asm.Word), asm.JEq.Imm(asm.R0, 0, passes)}
}

// LongerThan holds for frames of more than n bytes.
func LongerThan(n int32) Part {
	return Part{asm.LoadMem(asm.R0, asm.R6, skbLen, asm.Word), asm.JLE.Imm(asm.R0, n, passes)}
}

// OddLength holds for frames of an odd number of bytes.
func OddLength() Part {
	return Part{asm.LoadMem(asm.R0, asm.R6, skbLen, asm.Word), asm.And.Imm(asm.R0, 1), asm.JEq.Imm(asm.R0, 0, passes)}
}

// read reads size bytes of the packet to the stack below the frame pointer.
func read(offset, size, stack int32) Part {
	return Part{
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, size), asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, passes),
	}
}

// Protocol holds for packets with a protocol in the IP header.
func Protocol(ip Header, number int32) Part {
	return append(read(ip.Offset+ip.fields().protocol, 1, -8), asm.LoadMem(asm.R0, asm.RFP, -8, asm.Byte), asm.JNE.Imm(asm.R0, number, passes))
}

// ECNCapable holds for packets with an ECN codepoint in the IP header.
func ECNCapable(ip Header) Part {
	c := append(ip.present(), read(ip.Offset+1, 1, -8)...) // ARP has other bits there
	return append(c, asm.LoadMem(asm.R0, asm.RFP, -8, asm.Byte), asm.And.Imm(asm.R0, ip.fields().ecn), asm.JEq.Imm(asm.R0, 0, passes))
}

// ChecksumLeft holds for packets of UDP or TCP whose checksum field has the sum of the
// pseudo header only. The sender has left the checksum to the device, as for each
// super-packet.
func ChecksumLeft(ip Header) Part {
	const header, transport = -40, -64 // on the stack
	f := ip.fields()
	c := append(ip.present(), asm.LoadMem(asm.R0, asm.R6, skbGSOSize, asm.Word), asm.JNE.Imm(asm.R0, 0, acts))
	c = append(c, read(ip.Offset, f.size, header)...)
	c = append(c, read(ip.Offset+f.size, 18, transport)...) // up to the checksum of TCP
	c = append(c,                                           // R7: sum of network-order words
		asm.LoadMem(asm.R7, asm.RFP, int16(header+f.length), asm.Half),
		asm.HostTo(asm.BE, asm.R7, asm.Half),
		asm.Sub.Imm(asm.R7, f.counted),
		asm.LoadMem(asm.R8, asm.RFP, int16(header+f.protocol), asm.Byte),
		asm.Add.Reg(asm.R7, asm.R8),
		asm.HostTo(asm.BE, asm.R7, asm.Half))
	for at := f.addresses; at < f.size; at += 2 {
		c = append(c, asm.LoadMem(asm.R0, asm.RFP, int16(header+at), asm.Half), asm.Add.Reg(asm.R7, asm.R0))
	}
	for range 2 {
		c = append(c, asm.Mov.Reg(asm.R0, asm.R7), asm.RSh.Imm(asm.R0, 16), asm.And.Imm(asm.R7, 0xffff), asm.Add.Reg(asm.R7, asm.R0))
	}
	return append(c,
		asm.LoadMem(asm.R0, asm.RFP, transport+6, asm.Half), // of UDP
		asm.JEq.Imm(asm.R8, unix.IPPROTO_UDP, "compare"),
		asm.JNE.Imm(asm.R8, unix.IPPROTO_TCP, passes),
		asm.LoadMem(asm.R0, asm.RFP, transport+16, asm.Half),
		asm.JNE.Reg(asm.R0, asm.R7, passes).WithSymbol("compare"))
}

// present holds for packets with such a header: the first four bits are the version.
func (h Header) present() Part {
	return append(read(h.Offset, 1, -8),
		asm.LoadMem(asm.R0, asm.RFP, -8, asm.Byte), asm.RSh.Imm(asm.R0, 4), asm.JNE.Imm(asm.R0, h.fields().version, passes))
}

// Randomly holds for a share of the packets, in percent.
func Randomly(percent int32) Part {
	return Part{
		asm.FnGetPrandomU32.Call(),
		asm.Mod.Imm32(asm.R0, 100), asm.JGE.Imm(asm.R0, percent, passes),
	}
}

// Drop loses the packet.
func Drop() Part {
	return Part{asm.Mov.Imm(asm.R0, 2), asm.Return()} // TC_ACT_SHOT
}

// Damage flips the bits of a byte.
func Damage(offset int32) Part {
	return append(read(offset, 1, -8),
		asm.LoadMem(asm.R0, asm.RFP, -8, asm.Byte), asm.Xor.Imm(asm.R0, 0xff), asm.StoreMem(asm.RFP, -8, asm.R0, asm.Byte),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, offset), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 1), asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call())
}

// ClearECN removes the codepoint, and corrects the checksum of an IPv4 header.
func ClearECN(ip Header) Part {
	c := append(read(ip.Offset, 2, -8),
		asm.LoadMem(asm.R7, asm.RFP, -8, asm.Half),
		asm.LoadMem(asm.R8, asm.RFP, -7, asm.Byte), asm.And.Imm(asm.R8, ^ip.fields().ecn), asm.StoreMem(asm.RFP, -7, asm.R8, asm.Byte))
	flags := int32(recomputeChecksum)
	if !ip.IPv6 {
		flags = 0 // the corrected checksum makes up for the change
		c = append(c,
			asm.LoadMem(asm.R8, asm.RFP, -8, asm.Half),
			asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, ip.Offset+10), asm.Mov.Reg(asm.R3, asm.R7), asm.Mov.Reg(asm.R4, asm.R8),
			asm.Mov.Imm(asm.R5, 2), asm.FnL3CsumReplace.Call())
	}
	return append(c,
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, ip.Offset), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 2), asm.Mov.Imm(asm.R5, flags), asm.FnSkbStoreBytes.Call())
}

// recomputeChecksum has bpf_skb_store_bytes correct a sum over the whole packet
// (BPF_F_RECOMPUTE_CSUM, linux/bpf.h).
const recomputeChecksum = 1

// Fault is a fault of a device.
type Fault struct {
	scope  netnstest.Scope
	host   *netnstest.Host
	filter netlink.Filter
	hits   *ebpf.Map // one number
}

// Plant attaches a fault to what a device of a host receives. The end of the scope
// closes the Fault, but does not remove it from the device.
func Plant(scope netnstest.Scope, h *netnstest.Host, device string, parts ...Part) *Fault {
	scope.Helper()
	f := &Fault{scope: scope, host: h}
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11
		scope.Fatalf("raise limit of locked memory: %v", err)
	}
	var err error
	if f.hits, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		scope.Fatalf("make counter of fault: %v", err)
	}
	scope.Cleanup(func() { _ = f.hits.Close() })
	program, err := load(parts, f.hits)
	if err != nil {
		scope.Fatalf("load fault: %+v", err)
	}
	defer program.Close() // the kernel keeps what is attached
	if f.filter, err = attach(h, device, program); err != nil {
		scope.Fatalf("plant fault at %s of %s: %v", device, h.Name(), err)
	}
	return f
}

// Remove removes the fault from the device.
func (f *Fault) Remove() {
	f.scope.Helper()
	if err := f.host.Netlink().FilterDel(f.filter); err != nil {
		f.scope.Fatalf("remove fault of %s: %v", f.host.Name(), err)
	}
}

// Hits returns the number of packets that the fault has met.
func (f *Fault) Hits() (n uint64) {
	f.scope.Helper()
	if err := f.hits.Lookup(uint32(0), &n); err != nil {
		f.scope.Fatalf("read counter of fault: %v", err)
	}
	return n
}

func load(parts []Part, hits *ebpf.Map) (*ebpf.Program, error) {
	code := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for _, p := range parts[:len(parts)-1] {
		code = append(code, p...)
	}
	code = append(code,
		asm.StoreImm(asm.RFP, -96, 0, asm.Word).WithSymbol(acts),
		asm.LoadMapPtr(asm.R1, hits.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -96),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, passes),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0))
	code = append(code, parts[len(parts)-1]...)
	code = append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol(passes), asm.Return()) // TC_ACT_OK
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: code, License: "GPL"})
}

// attach attaches a program by the qdisc clsact, which kernels without tcx have, too.
func attach(h *netnstest.Host, device string, program *ebpf.Program) (netlink.Filter, error) {
	link, err := h.Netlink().LinkByName(device)
	if err != nil {
		return nil, err
	}
	index := link.Attrs().Index
	classifier := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := h.Netlink().QdiscAdd(classifier); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("add clsact: %w", err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 7,
		},
		Fd: program.FD(), Name: "fault", DirectAction: true,
	}
	return filter, h.Netlink().FilterAdd(filter)
}
