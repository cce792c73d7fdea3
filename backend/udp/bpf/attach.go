package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachPoint is one of the two places that decapsulate an uplink's packets.
type attachPoint struct {
	prefix string            // of its pinned links' names
	links  map[int]link.Link // by index of the uplink
}

func (at attachPoint) pin(index int) string { return at.prefix + strconv.Itoa(index) }

// attachPoints are those of uplinks in the order of detaching: only the tcx
// programs handle packets that decap_xdp decapsulated.
func (p *Path) attachPoints() []attachPoint { return []attachPoint{p.xdp, p.tc} }

// Attach attaches encap to the device, and the decap programs to these uplinks and
// no others, given by index. decap_xdp is only for those that gain by it; see
// XDPRefusals. Attach is called again when uplinks come, go or change; one that
// has gone is skipped. Datagrams of other interfaces go to the socket.
//
// It must be called in the network namespace of the device.
func (p *Path) Attach(uplinks []int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.xdpRefusals)
	for _, index := range uplinks {
		if err := p.attachUplink(index); err != nil {
			return fmt.Errorf("attach kernel path to interface %d: %w", index, err)
		}
	}
	if err := p.attachDevice(); err != nil {
		return fmt.Errorf("attach kernel path to interface %d: %w", p.config.Device, err)
	}
	for _, at := range p.attachPoints() {
		if err := p.detachOthers(at, uplinks); err != nil {
			return fmt.Errorf("detach kernel path: %w", err)
		}
	}
	if p.config.PinDir != "" {
		if err := p.commitPins(); err != nil {
			return fmt.Errorf("pin kernel path: %w", err)
		}
	}
	return nil
}

// detachOthers ends the links of other uplinks, also those of an earlier process.
func (p *Path) detachOthers(at attachPoint, uplinks []int) error {
	have, err := p.pinnedUplinks(at)
	if err != nil {
		return err
	}
	for index := range at.links {
		have = append(have, index)
	}
	for _, index := range have {
		if !slices.Contains(uplinks, index) {
			if err := p.detach(at, index); err != nil {
				return err
			}
		}
	}
	return nil
}

// detach ends a link, also that of an earlier process; no error if there is none.
func (p *Path) detach(at attachPoint, index int) error {
	l := at.links[index]
	if l == nil {
		var err error
		if l, err = p.pinned(at.pin(index)); l == nil || err != nil {
			return err
		}
	}
	delete(at.links, index)
	return end(l)
}

func (p *Path) attachUplink(index int) error {
	i, err := netlink.LinkByIndex(index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	program, err := p.programFor(i.Attrs())
	if err != nil {
		return err
	}
	err = p.attachTo(p.tc, index, program, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress})
	})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.attachXDP(i.Attrs())
}

// attachTo attaches a program to an uplink if it is not attached.
func (p *Path) attachTo(at attachPoint, index int, program *ebpf.Program, open func() (link.Link, error)) error {
	if l := at.links[index]; l != nil {
		attached, err := interfaceOf(l)
		if err != nil || attached == index {
			return err
		}
		// The interface has gone, and another has its index.
		if err := p.detach(at, index); err != nil {
			return err
		}
	}
	l, err := p.attach(at.pin(index), index, program, open)
	if err == nil {
		at.links[index] = l
	}
	return err
}

func (p *Path) attachDevice() error {
	if p.encap != nil {
		return nil
	}
	l, err := p.attach(linkEncap, p.config.Device, p.Encap, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: p.config.Device, Program: p.Encap, Attach: ebpf.AttachTCXEgress})
	})
	if err == nil {
		p.encap = l
	}
	return err
}

// programFor selects the program by the interface's link header.
func (p *Path) programFor(i *netlink.LinkAttrs) (*ebpf.Program, error) {
	switch i.EncapType {
	case "ether", "loopback":
		return p.DecapL2, nil
	case "none", "ppp":
		return p.DecapL3, nil
	default:
		return nil, fmt.Errorf("link layer %q of %s: %w", i.EncapType, i.Name, ebpf.ErrNotSupported)
	}
}

// attach makes a link. If an earlier process pinned one under that name, it runs
// this program from the next packet on.
func (p *Path) attach(name string, index int, program *ebpf.Program, open func() (link.Link, error)) (link.Link, error) {
	l, err := p.pinned(name)
	if err != nil {
		return nil, err
	}
	if l != nil {
		if attached, err := interfaceOf(l); err == nil && attached == index {
			if err := l.Update(program); err != nil {
				return nil, errors.Join(fmt.Errorf("replace program: %w", explain(err)), l.Close())
			}
			return l, nil
		}
		if err := end(l); err != nil {
			return nil, err
		}
	}
	if l, err = open(); err != nil {
		return nil, explain(err)
	}
	if p.config.PinDir != "" {
		if err := l.Pin(filepath.Join(p.config.PinDir, name)); err != nil {
			return nil, errors.Join(fmt.Errorf("pin %s: %w", name, err), l.Close())
		}
	}
	return l, nil
}

// pinned returns the link that is pinned under a name; nil if there is none.
func (p *Path) pinned(name string) (link.Link, error) {
	if p.config.PinDir == "" {
		return nil, nil
	}
	l, err := link.LoadPinnedLink(filepath.Join(p.config.PinDir, name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err)
	}
	return l, nil
}

// pinnedUplinks returns the indexes of the uplinks that have a pinned link.
func (p *Path) pinnedUplinks(at attachPoint) ([]int, error) {
	if p.config.PinDir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(p.config.PinDir)
	if err != nil {
		return nil, err
	}
	var indexes []int
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), at.prefix)
		if !ok {
			continue
		}
		index, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("read name of pin %q: %w", e.Name(), err)
		}
		indexes = append(indexes, index)
	}
	return indexes, nil
}

// interfaceOf returns the index of a link's interface; 0 after that has gone.
func interfaceOf(l link.Link) (int, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	if tcx := info.TCX(); tcx != nil {
		return int(tcx.Ifindex), nil
	}
	if xdp := info.XDP(); xdp != nil {
		return int(xdp.Ifindex), nil
	}
	return 0, fmt.Errorf("link %d is neither tcx nor XDP", info.ID)
}
