package bpf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachment is a program at an interface.
type attachment struct {
	link.Link
	index int // of the interface
}

// detachOrder are the names of links, or their beginnings, in the order to detach
// them. encap is first: a packet that is not sent gets no reply that would be lost.
// Only the tcx programs handle packets that decap_xdp decapsulated, so XDP precedes
// them.
var detachOrder = []string{linkEncap, linkXDPPrefix, linkTCPrefix}

// linksOf returns those names that are links', in detachOrder.
func linksOf(names []string) []string {
	var links []string
	for _, prefix := range detachOrder {
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				links = append(links, name)
			}
		}
	}
	return links
}

// linkNames returns the names of our links, in detachOrder.
func (p *Path) linkNames() []string { return linksOf(slices.Collect(maps.Keys(p.links))) }

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
	if err := p.attachTCX(linkEncap, p.config.Device, p.Encap, ebpf.AttachTCXEgress); err != nil {
		return fmt.Errorf("attach kernel path to interface %d: %w", p.config.Device, err)
	}
	if err := p.detachOthers(uplinks); err != nil {
		return fmt.Errorf("detach kernel path: %w", err)
	}
	if p.config.PinDir != "" {
		if err := p.commitPins(); err != nil {
			return fmt.Errorf("pin kernel path: %w", err)
		}
	}
	return nil
}

// detachOthers ends the links of other uplinks, also those of an earlier process.
func (p *Path) detachOthers(uplinks []int) error {
	names := slices.Collect(maps.Keys(p.links))
	if p.config.PinDir != "" {
		pinned, err := entryNames(p.config.PinDir)
		if err != nil {
			return err
		}
		names = append(names, pinned...)
	}
	keep := []string{linkEncap}
	for _, index := range uplinks {
		keep = append(keep, tcLink(index), xdpLink(index))
	}
	for _, name := range linksOf(names) {
		if !slices.Contains(keep, name) {
			if err := p.detach(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// detach ends a link, also that of an earlier process; no error if there is none.
func (p *Path) detach(name string) error {
	l, err := p.link(name)
	if l == nil || err != nil {
		return err
	}
	delete(p.links, name)
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
	err = p.attachTCX(tcLink(index), index, program, ebpf.AttachTCXIngress)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.attachXDP(i.Attrs())
}

// attachTCX attaches a program before all others of the interface. A program before
// ours that ends the chain (TCX_PASS) would lead datagrams past ours: on virtual
// links the socket cannot use these.
func (p *Path) attachTCX(name string, index int, program *ebpf.Program, to ebpf.AttachType) error {
	return p.attach(name, index, program, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: to, Anchor: link.Head()})
	})
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

// attach attaches a program to an interface if it is not in its place. A link that an
// earlier process pinned under that name runs this program from the next packet on.
func (p *Path) attach(name string, index int, program *ebpf.Program, open func() (link.Link, error)) error {
	_, ours := p.links[name]
	l, err := p.link(name)
	if err != nil {
		return err
	}
	if l != nil {
		why, err := misplaced(l, index)
		if err != nil {
			return err
		}
		if why == nil {
			if !ours {
				if err := l.Update(program); err != nil {
					return errors.Join(fmt.Errorf("replace program: %w", explain(err)), l.Close())
				}
				p.links[name] = attachment{l, index}
			}
			return nil
		}
		p.repair(index, why)
		delete(p.links, name)
		if err := end(l); err != nil {
			return err
		}
	}
	if l, err = open(); err != nil {
		return explain(err)
	}
	if p.config.PinDir != "" {
		// A daemon of another namespace removes the pins of a device that seems gone:
		// those of a link that a person detached.
		err := os.MkdirAll(p.config.PinDir, 0o700)
		if err == nil {
			err = l.Pin(filepath.Join(p.config.PinDir, name))
		}
		if err != nil {
			return errors.Join(fmt.Errorf("pin %s: %w", name, err), l.Close())
		}
	}
	p.links[name] = attachment{l, index}
	return nil
}

// link returns the link of that name, ours or a pinned one; nil if there is none.
func (p *Path) link(name string) (link.Link, error) {
	if a, ours := p.links[name]; ours {
		return a.Link, nil
	}
	if p.config.PinDir == "" {
		return nil, nil
	}
	return pinnedLink(filepath.Join(p.config.PinDir, name))
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
