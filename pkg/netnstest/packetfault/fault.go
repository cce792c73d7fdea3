// Package packetfault plants faults of network devices, drivers and hypervisors into
// hosts of a lab: programs that lose or change some of the packets that a device
// receives.
//
//	remove := packetfault.Plant(t, host, "eth0", packetfault.SuperPacket(), packetfault.Drop())
//
// The parts but the last are conditions. The last is what happens to packets that all
// conditions hold for.
package packetfault

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Fields of struct __sk_buff (linux/bpf.h), by offset.
const (
	skbLen     = 0
	skbGSOSize = 176
)

// ecnBits are the bits of the ECN codepoint in the TOS field (RFC 3168).
const ecnBits = 3

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

// read reads size bytes of the packet to the stack below the frame pointer.
func read(offset, size, stack int32) Part {
	return Part{
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, size), asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, passes),
	}
}

// Protocol holds for packets with a protocol in the IP header at offset ip.
func Protocol(ip int32, number int32) Part {
	return append(read(ip+9, 1, -8), asm.LoadMem(asm.R0, asm.RFP, -8, asm.Byte), asm.JNE.Imm(asm.R0, number, passes))
}

// ECNCapable holds for packets with an ECN codepoint in the IP header at offset ip.
func ECNCapable(ip int32) Part {
	return append(read(ip+1, 1, -8),
		asm.LoadMem(asm.R0, asm.RFP, -8, asm.Byte), asm.And.Imm(asm.R0, ecnBits), asm.JEq.Imm(asm.R0, 0, passes))
}

// ChecksumLeft holds for packets of UDP or TCP, with an IP header at offset ip, whose
// checksum field has the sum of the pseudo header only. The sender has left the checksum
// to the device, as for each super-packet.
func ChecksumLeft(ip int32) Part {
	c := Part{asm.LoadMem(asm.R0, asm.R6, skbGSOSize, asm.Word), asm.JNE.Imm(asm.R0, 0, acts)}
	c = append(c, read(ip, 20, -24)...)    // -24: IP header
	c = append(c, read(ip+20, 18, -48)...) // -48: TCP header up to the checksum
	c = append(c,                          // R7: sum of network-order words
		asm.LoadMem(asm.R7, asm.RFP, -22, asm.Half), // total length
		asm.HostTo(asm.BE, asm.R7, asm.Half),
		asm.Sub.Imm(asm.R7, 20),
		asm.LoadMem(asm.R8, asm.RFP, -15, asm.Byte), // protocol
		asm.Add.Reg(asm.R7, asm.R8),
		asm.HostTo(asm.BE, asm.R7, asm.Half))
	for offset := int16(-12); offset < -4; offset += 2 { // addresses
		c = append(c, asm.LoadMem(asm.R0, asm.RFP, offset, asm.Half), asm.Add.Reg(asm.R7, asm.R0))
	}
	for range 2 {
		c = append(c, asm.Mov.Reg(asm.R0, asm.R7), asm.RSh.Imm(asm.R0, 16), asm.And.Imm(asm.R7, 0xffff), asm.Add.Reg(asm.R7, asm.R0))
	}
	return append(c,
		asm.LoadMem(asm.R0, asm.RFP, -48+6, asm.Half), // of UDP
		asm.JEq.Imm(asm.R8, unix.IPPROTO_UDP, "compare"),
		asm.JNE.Imm(asm.R8, unix.IPPROTO_TCP, passes),
		asm.LoadMem(asm.R0, asm.RFP, -48+16, asm.Half),
		asm.JNE.Reg(asm.R0, asm.R7, passes).WithSymbol("compare"))
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

// ClearECN removes the codepoint, and corrects the checksum of the IP header.
func ClearECN(ip int32) Part {
	c := append(read(ip, 2, -8),
		asm.LoadMem(asm.R7, asm.RFP, -8, asm.Half),
		asm.LoadMem(asm.R8, asm.RFP, -7, asm.Byte), asm.And.Imm(asm.R8, ^ecnBits), asm.StoreMem(asm.RFP, -7, asm.R8, asm.Byte),
		asm.LoadMem(asm.R8, asm.RFP, -8, asm.Half),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, ip+10), asm.Mov.Reg(asm.R3, asm.R7), asm.Mov.Reg(asm.R4, asm.R8),
		asm.Mov.Imm(asm.R5, 2), asm.FnL3CsumReplace.Call())
	return append(c,
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, ip), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 2), asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call())
}

// Plant attaches a fault to what a device of a host receives, and returns a function
// that removes it.
func Plant(scope netnstest.Scope, h *netnstest.Host, device string, parts ...Part) (remove func()) {
	scope.Helper()
	program, err := load(parts)
	if err != nil {
		scope.Fatalf("load fault: %+v", err)
	}
	scope.Cleanup(func() { _ = program.Close() }) // the kernel keeps what is attached
	filter, err := attach(h, device, program)
	if err != nil {
		scope.Fatalf("plant fault at %s of %s: %v", device, h.Name(), err)
	}
	return func() {
		scope.Helper()
		if err := h.Netlink().FilterDel(filter); err != nil {
			scope.Fatalf("remove fault at %s of %s: %v", device, h.Name(), err)
		}
	}
}

func load(parts []Part) (*ebpf.Program, error) {
	code := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for i, p := range parts {
		if i == len(parts)-1 {
			p[0] = p[0].WithSymbol(acts)
		}
		code = append(code, p...)
	}
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
