package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/pinned"
)

// Config configures the programs. All fields but PinDir and MaxPeers are constants
// in them, so a change needs a new Load.
type Config struct {
	// Device is the index of the TUN device. It must have IFF_NO_PI, and an MTU of
	// the uplink's less 28 bytes; 48 if all datagrams are of IPv6.
	Device int
	// Port is the UDP port of every host.
	Port uint16
	// Locals are this host's addresses on the underlay, by family, to send from and
	// receive at. That of a family without datagrams is not valid.
	Locals [2]netip.Addr
	// Subnets are this host's lease, by family, which peers may send to. That of a
	// family without packets is not valid.
	Subnets [2]netip.Prefix
	// MTU is the device's, in bytes. Datagrams of larger packets go to the socket.
	MTU int
	// MaxPeers bounds the tables of the families. The kernel allocates about 100 bytes
	// for each peer, and as many for each CPU.
	MaxPeers [2]int
	// PinDir, if not empty, is the directory on a bpffs that keeps the path after
	// the process ends; see the function PinDir.
	PinDir string
	// old is for tests: use only what Linux 5.10 has.
	old bool
}

func (c Config) validate() error {
	switch {
	case c.Device <= 0:
		return fmt.Errorf("device index %d is not positive", c.Device)
	case c.Port == 0:
		return errors.New("port is 0")
	case c.Locals == [2]netip.Addr{}:
		return errors.New("local address is missing")
	case c.Subnets == [2]netip.Prefix{}:
		return errors.New("subnet is missing")
	case c.MTU <= 0:
		return fmt.Errorf("MTU %d is not positive", c.MTU)
	}
	for _, f := range inet.Families {
		local, subnet := c.Locals[f], c.Subnets[f]
		switch {
		case local.IsValid() && inet.Of(local) != f:
			return fmt.Errorf("local address %v is not %v", local, f)
		case subnet.IsValid() && (inet.Of(subnet.Addr()) != f || subnet != subnet.Masked()):
			return fmt.Errorf("subnet %v is not a subnet of %v", subnet, f)
		case subnet.IsValid() && c.MaxPeers[f] <= 0:
			return fmt.Errorf("maximum of %d %v peers is not positive", c.MaxPeers[f], f)
		}
	}
	return nil
}

// Path is a kernel data path, loaded. Its methods are safe for concurrent use.
type Path struct {
	config  Config
	adopted bool

	mu sync.Mutex // guards all below
	objects
	filters     bool                  // attach by filters of tc: the kernel has no tcx
	interpreted bool                  // the kernel does not compile the programs
	tc          *netlink.Handle       // of the device's namespace
	hooks       map[string]attachment // by name of the pin
	xdpRefusals map[int]error         // why decap_xdp is not attached, by the uplink's index
	mixed       bool                  // the kernel unwraps a packet of the other family
	// table mirrors the maps of peers. hosts and lengths count the peers of an
	// address and of a prefix length.
	table   map[netip.Prefix]endpoint
	hosts   map[netip.Addr]int
	lengths prefixLengths
	// incomplete is true if peers are missing in the table; see SetIncomplete.
	incomplete bool
	repairs    int   // see Repairs
	loss       error // see Loss
}

// objects are the kernel's. Programs and maps are pinned under their names in
// flannel.c.
type objects struct {
	flannelPrograms
	flannelMaps
}

// Load takes over the path that is pinned at c.PinDir, with its peers, uplinks and
// counters. If that has other programs or another configuration, Load loads a new path
// without peers and uplinks. Attach then replaces the pinned programs, without losing a
// packet.
//
// It must be called in the network namespace of the device. It turns on
// forwarding for packets from the device; the programs admit only packets to
// c.Subnets.
//
// Errors: the kernel's; os.ErrPermission if a capability is missing
// (CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, or CAP_SYS_ADMIN to mount a bpffs);
// ebpf.ErrNotSupported if the kernel is too old.
func Load(c Config) (*Path, error) {
	p := newPath(c)
	if err := p.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("load kernel path: %w", err), p.Close())
	}
	return p, nil
}

func (p *Path) open() error {
	if err := p.config.validate(); err != nil {
		return err
	}
	for _, f := range inet.Families {
		if !p.config.Locals[f].IsValid() {
			continue
		}
		if err := forward(p.config.Device, f); err != nil {
			return err
		}
	}
	mixed, err := UnwrapsMixed()
	if err != nil {
		return err
	}
	p.mixed = mixed && !p.config.old
	if p.config.PinDir != "" {
		if err := pinned.Prepare(p.config.PinDir, removeGone); err != nil {
			return err
		}
		if err := p.adopt(); err != nil {
			return err
		}
	}
	if !p.adopted {
		if err := p.load(); err != nil {
			return err
		}
	}
	return p.openHooks()
}

// openHooks chooses the kind of hooks.
func (p *Path) openHooks() (err error) {
	if p.interpreted, err = pinned.Interpreted(); err != nil {
		return explain(err)
	}
	if p.tc, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	err = explain(netdev.ProbeTCX(p.Encap))
	if p.filters = p.config.old || errors.Is(err, ebpf.ErrNotSupported); p.filters {
		return nil
	}
	return err
}

// Hooks names the kind of hooks that run the programs, with the reason if it is not
// the best one, and what makes the programs slow.
func (p *Path) Hooks() string {
	hooks := "tcx"
	if p.filters {
		hooks = "filters of tc, since tcx needs Linux 6.6 or newer"
	}
	if p.interpreted {
		hooks += "; the kernel interprets them, which is slow: " + pinned.Compile
	}
	return hooks
}

func newPath(c Config) *Path {
	return &Path{
		config: c, hooks: make(map[string]attachment), xdpRefusals: make(map[int]error),
		table: make(map[netip.Prefix]endpoint), hosts: make(map[netip.Addr]int),
	}
}

// Adopted returns true if Load took over a pinned path.
func (p *Path) Adopted() bool { return p.adopted }

func (p *Path) load() error {
	// Before Linux 5.11 maps count against the limit of locked memory. If it cannot
	// be raised, the load fails with EPERM.
	_ = rlimit.RemoveMemlock()
	spec, err := loadFlannel()
	if err != nil {
		return err
	}
	if err := fit(spec, p.config.old); err != nil {
		return err
	}
	for name, value := range p.config.variables() {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := spec.Variables[flannelVarMixed].Set(p.mixed); err != nil {
		return fmt.Errorf("set %s: %w", flannelVarMixed, err)
	}
	most := p.config.MaxPeers
	spec.Maps[flannelMapPeers].MaxEntries = uint32(max(most[inet.IPv4], 1))
	spec.Maps[flannelMapPeers6].MaxEntries = uint32(max(most[inet.IPv6], 1))
	// Each peer has up to two addresses.
	spec.Maps[flannelMapHosts].MaxEntries = uint32(2 * (most[inet.IPv4] + most[inet.IPv6]))
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return explain(err)
	}
	return nil
}

// Close closes the path's descriptors. A pinned path goes on; else the programs
// are detached.
func (p *Path) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, name := range p.hookNames() {
		errs = append(errs, p.hooks[name].Close())
	}
	clear(p.hooks)
	if p.tc != nil {
		p.tc.Close()
		p.tc = nil
	}
	errs = append(errs, p.flannelPrograms.Close(), p.flannelMaps.Close())
	p.objects = objects{}
	return errors.Join(errs...)
}

// variables returns the programs' constants by name. Those of a family that is not
// used stay 0.
func (c Config) variables() map[string]any {
	v := map[string]any{
		flannelVarDevice: uint32(c.Device),
		flannelVarPort:   [2]byte{byte(c.Port >> 8), byte(c.Port)},
		flannelVarMtu:    uint32(c.MTU),
	}
	if a := c.Locals[inet.IPv4]; a.IsValid() {
		v[flannelVarLocal] = inAddr(a)
	}
	if a := c.Locals[inet.IPv6]; a.IsValid() {
		v[flannelVarLocal6] = in6Addr(a)
	}
	if s := c.Subnets[inet.IPv4]; s.IsValid() {
		v[flannelVarSubnet], v[flannelVarMask] = inAddr(s.Addr()), inMask(s.Bits())
	}
	if s := c.Subnets[inet.IPv6]; s.IsValid() {
		v[flannelVarSubnet6], v[flannelVarMask6] = in6Addr(s.Addr()), in6Mask(s.Bits())
	}
	return v
}

// explain adds to an error of the kernel what the programs need.
func explain(err error) error { return pinned.Explain(err, "the kernel path") }

// Probe returns the kind of hooks if this process can use the kernel path on this kernel,
// else the reason against it. It loads the programs without attaching them. That needs
// the capabilities, and the kernel verifies the programs and the helpers they call.
func Probe() (hooks string, err error) {
	local, local6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	p := newPath(Config{
		Device: 1, Port: 1, MaxPeers: [2]int{1, 1}, MTU: 1,
		Locals:  [2]netip.Addr{local, local6},
		Subnets: [2]netip.Prefix{netip.PrefixFrom(local, 32), netip.PrefixFrom(local6, 128)},
	})
	p.mixed = true
	err = p.load()
	if err == nil {
		err = p.openHooks()
	}
	if err := errors.Join(err, p.Close()); err != nil {
		return "", fmt.Errorf("probe kernel path: %w", err)
	}
	return p.Hooks(), nil
}
