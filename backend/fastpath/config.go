package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Marks are the bits of a conntrack entry's mark that the programs use. No other
// bit of the mark is changed.
type Marks struct {
	// Sent is set after the host's rules have passed a packet from the container.
	// Received is set after they have passed one to it. Each is one bit.
	Sent, Received uint32
}

// MarksOf returns the marks of two bits. The lower one is that of packets sent.
func MarksOf(bits uint32) Marks {
	sent := bits & -bits
	return Marks{Sent: sent, Received: bits &^ sent}
}

// Config is constant in the loaded programs.
type Config struct {
	// Name is the name of the tunnel device, or another name without one. It is in
	// the name of the path's nftables table.
	Name string
	// Device is the index of the tunnel device, which has no link header. 0: there is no
	// tunnel, and packets leave and arrive by the uplinks as they are (direct).
	Device int
	// Network has the addresses of all hosts' containers, Subnet those of this
	// host's. Both are IPv4.
	Network, Subnet netip.Prefix
	Marks           Marks
	// PinDir is a directory on a bpffs. The programs in it stay at work when the
	// process ends. With a tunnel, its parent must exist when Join is called.
	PinDir string

	// For tests: as if the kernel had no tcx, or lacked what the programs but `whole` need.
	old, onlyWhole bool
	// lookUp, if not 0, is looked for in place of [skipNeighbour]. For tests.
	lookUp uint32
}

// Tunnel has the tunnel's own programs that the fast path works with. Without them,
// packets pass the tunnel device.
type Tunnel struct {
	// Encap, if not nil, wraps an Ethernet packet and sends it.
	Encap *ebpf.Program
	// Decap, if not nil, is a program array. The tunnel's own program calls its
	// entry 0 for an Ethernet packet that it has unwrapped.
	Decap *ebpf.Map
}

func (c Config) validate() error {
	one := func(mark uint32) bool { return bits.OnesCount32(mark) == 1 }
	switch {
	case c.Name == "":
		return errors.New("name is missing")
	case c.Device < 0:
		return fmt.Errorf("device index %d is negative", c.Device)
	case !c.Network.IsValid() || !c.Network.Addr().Is4() || c.Network != c.Network.Masked():
		return fmt.Errorf("network %v is not an IPv4 network", c.Network)
	case c.Subnet != c.Subnet.Masked() || c.Subnet.Bits() < c.Network.Bits() || !c.Network.Contains(c.Subnet.Addr()):
		return fmt.Errorf("subnet %v is not within network %v", c.Subnet, c.Network)
	case !one(c.Marks.Sent) || !one(c.Marks.Received) || c.Marks.Sent == c.Marks.Received:
		return fmt.Errorf("marks %#x and %#x are not two different bits", c.Marks.Sent, c.Marks.Received)
	case c.PinDir == "":
		return errors.New("directory for pins is missing")
	}
	return nil
}

func (c Config) direct() bool { return c.Device == 0 }

// owner tells the filters of one network from those of others. Indexes of interfaces
// are below ownersOfNetworks.
func (c Config) owner() int {
	if !c.direct() {
		return c.Device
	}
	return ownersOfNetworks | int(crc32.ChecksumIEEE([]byte(c.Network.String())))&(ownersOfNetworks-1)
}

const ownersOfNetworks = 1 << 15

// be32 returns a in the byte order of packets.
func be32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func mask(bits int) uint32 {
	return binary.NativeEndian.Uint32(net.CIDRMask(bits, 32))
}
