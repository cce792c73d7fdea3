package offloadprobe

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// ipOptions are the socket options of an address family (ip(7), ipv6(7)).
type ipOptions struct {
	// protocol is "IP" or "IPV6", as in the options' names.
	protocol                                          string
	level, freebind, discover, probe, receiveTOS, tos int
}

var optionsOf = [...]ipOptions{
	inet.IPv4: {"IP", unix.SOL_IP, unix.IP_FREEBIND, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_RECVTOS, unix.IP_TOS},
	inet.IPv6: {"IPV6", unix.SOL_IPV6, unix.IPV6_FREEBIND, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_RECVTCLASS, unix.IPV6_TCLASS},
}

// network returns the name of a protocol in package net, for one family.
func network(protocol string, f inet.Family) string {
	if f == inet.IPv4 {
		return protocol + "4"
	}
	return protocol + "6"
}

// set sets an option of the family.
func (o *ipOptions) set(fd int, name string, option, value int) error {
	return os.NewSyscallError("setsockopt "+o.protocol+"_"+name, unix.SetsockoptInt(fd, o.level, option, value))
}

// setUDP sets the options of a UDP socket before bind. FREEBIND: the device may be
// made anew at any time. PROBE sets DF in IPv4, and ignores the kernel's MTU of the
// path.
func (o *ipOptions) setUDP(fd int, merge bool) error {
	err := errors.Join(o.set(fd, "FREEBIND", o.freebind, 1), o.set(fd, "MTU_DISCOVER", o.discover, o.probe), o.set(fd, "RECVTOS", o.receiveTOS, 1))
	if merge {
		err = errors.Join(err, os.NewSyscallError("setsockopt UDP_GRO", unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)))
	}
	return err
}

// tosControl sets the TOS or traffic class of one datagram; 0 is the default.
func (o *ipOptions) tosControl(tos byte) []byte {
	if tos == 0 {
		return nil
	}
	return controlMessage(o.level, o.tos, binary.NativeEndian.AppendUint32(nil, uint32(tos)))
}
