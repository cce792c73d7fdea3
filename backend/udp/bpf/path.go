package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Config is what the programs are made for. All but PinDir and MaxPeers is a
// constant in them, so a change takes a new Load.
type Config struct {
	// Device is the index of the TUN device. It must be of IFF_NO_PI, and its
	// MTU the uplink's less 28 bytes.
	Device int
	// Port is the UDP port of every host.
	Port uint16
	// Local is the address on the underlay that we send from and receive at.
	Local netip.Addr
	// Subnet is our lease: what peers may send to.
	Subnet netip.Prefix
	// MaxPeers bounds the table, and is what memory is set aside for: about 100
	// bytes and 40 for every CPU each.
	MaxPeers int
	// PinDir, if not empty, is the directory on a bpffs that keeps the path when
	// the process ends; see PinDir.
	PinDir string
}

func (c Config) validate() error {
	switch {
	case c.Device <= 0:
		return fmt.Errorf("device index %d is not positive", c.Device)
	case c.Port == 0:
		return errors.New("port is 0")
	case !c.Local.Is4():
		return fmt.Errorf("local address %v is not IPv4", c.Local)
	case !c.Subnet.IsValid() || !c.Subnet.Addr().Is4() || c.Subnet != c.Subnet.Masked():
		return fmt.Errorf("subnet %v is not an IPv4 subnet", c.Subnet)
	case c.MaxPeers <= 0:
		return fmt.Errorf("maximum of %d peers is not positive", c.MaxPeers)
	}
	return nil
}

// Path is a kernel data path, loaded. Its methods are safe for concurrent use.
type Path struct {
	config  Config
	adopted bool

	mu sync.Mutex // guards all below
	objects
	out       link.Link
	in, early hook
	late      map[int]error // why early is not attached, by index of the uplink
	// table mirrors the map of peers; hosts and lengths count in how many of
	// them an address and a prefix length occur.
	table   map[flannelKey]owner
	hosts   map[uint32]int
	lengths [33]int
}

// objects are the kernel's. Those that a new process needs to go on are pinned
// under the names in the tags.
type objects struct {
	InEther *ebpf.Program `ebpf:"in_ether"`
	InBare  *ebpf.Program `ebpf:"in_bare"`
	Out     *ebpf.Program `ebpf:"out"`
	Early   *ebpf.Program `ebpf:"early"`
	Peers   *ebpf.Map     `ebpf:"peers"`
	Lengths *ebpf.Map     `ebpf:"lengths"`
	Hosts   *ebpf.Map     `ebpf:"hosts"`
	Drops   *ebpf.Map     `ebpf:"drops"`
}

// Load takes over the path that is pinned at c.PinDir, with its peers, uplinks
// and counters, if it was made by the same version for the same configuration.
// Otherwise it loads a new one with no peers and no uplinks, which takes the
// place of the pinned one, packet by packet, when Attach is called.
//
// It must be called in the network namespace of the device. It turns on
// forwarding for packets that come out of the device; the programs let in none
// but those to c.Subnet.
//
// Errors: those of the kernel; errors.Is(err, os.ErrPermission) where
// capabilities are missing (CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, and CAP_SYS_ADMIN
// to mount a bpffs), ebpf.ErrNotSupported where the kernel is too old.
func Load(c Config) (*Path, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("load kernel path: %w", err)
	}
	if err := forward(c.Device); err != nil {
		return nil, fmt.Errorf("load kernel path: %w", err)
	}
	p := newPath(c)
	if c.PinDir != "" {
		if err := preparePins(c.PinDir); err != nil {
			return nil, fmt.Errorf("load kernel path: %w", err)
		}
		adopted, err := p.adopt()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load kernel path: %w", err), p.Close())
		}
		if p.adopted = adopted; adopted {
			return p, nil
		}
	}
	if err := p.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("load kernel path: %w", err), p.Close())
	}
	return p, nil
}

func newPath(c Config) *Path {
	return &Path{
		config: c, late: make(map[int]error),
		in:    hook{linkInPrefix, make(map[int]link.Link)},
		early: hook{linkEarlyPrefix, make(map[int]link.Link)},
		table: make(map[flannelKey]owner), hosts: make(map[uint32]int),
	}
}

// Adopted reports whether the path was there already, at work.
func (p *Path) Adopted() bool { return p.adopted }

func (p *Path) load() error {
	spec, err := loadFlannel()
	if err != nil {
		return err
	}
	c := p.config
	for name, value := range map[string]any{
		flannelVarDevice: uint32(c.Device),
		flannelVarLocal:  be32(c.Local),
		flannelVarPort:   [2]byte{byte(c.Port >> 8), byte(c.Port)},
		flannelVarSubnet: be32(c.Subnet.Addr()),
		flannelVarMask:   mask(c.Subnet.Bits()),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	spec.Maps[flannelMapPeers].MaxEntries = uint32(c.MaxPeers)
	spec.Maps[flannelMapHosts].MaxEntries = uint32(c.MaxPeers)
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return explain(err)
	}
	return nil
}

// Close lets go of the path. It goes on by itself if it is pinned; else the
// programs are detached.
func (p *Path) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	// First the way out: what is not sent is not lost on the way back.
	if p.out != nil {
		errs = append(errs, p.out.Close())
	}
	for _, h := range p.hooks() {
		for _, l := range h.links {
			errs = append(errs, l.Close())
		}
		clear(h.links)
	}
	p.out = nil
	errs = append(errs,
		p.InEther.Close(), p.InBare.Close(), p.Out.Close(), p.Early.Close(),
		p.Peers.Close(), p.Lengths.Close(), p.Hosts.Close(), p.Drops.Close())
	p.objects = objects{}
	return errors.Join(errs...)
}

// forward lets the kernel route what arrives by the device. Without that it
// does not answer a route look-up on the device's behalf either
// (bpf_ipv4_fib_lookup in net/core/filter.c, BPF_FIB_LKUP_RET_FWD_DISABLED).
func forward(device int) error {
	i, err := net.InterfaceByIndex(device)
	if err != nil {
		return fmt.Errorf("find interface %d: %w", device, err)
	}
	path := filepath.Join("/proc/sys/net/ipv4/conf", i.Name, "forwarding")
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		return fmt.Errorf("turn on forwarding of %s: %w", i.Name, err)
	}
	return nil
}

// explain names the capabilities of which one is missing. Without CAP_PERFMON the
// verifier forbids arithmetic with pointers (EACCES).
func explain(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w; the kernel path needs the capabilities CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON", err)
	}
	return err
}

// be32 is a as it lies in memory, which is how packets and maps have it.
func be32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func addrOf(v uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func mask(bits int) uint32 {
	return binary.NativeEndian.Uint32(net.CIDRMask(bits, 32))
}
