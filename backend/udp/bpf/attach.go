package bpf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/tchook"
)

// attachment is a program at an interface.
type attachment struct {
	tchook.Hook
	index int // of the interface
}

// detachOrder are the names of hooks, or their beginnings, in the order to detach them.
// encap is first: a reply to a packet that it sends would be lost later. Only decap
// handles packets that decap_xdp decapsulated, so XDP precedes it.
var detachOrder = []string{linkEncap, filterOut, linkXDPPrefix, linkTCPrefix, filterIn}

// hooksOf returns those names that are hooks', in detachOrder.
func hooksOf(names []string) []string {
	var hooks []string
	for _, prefix := range detachOrder {
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				hooks = append(hooks, name)
			}
		}
	}
	return hooks
}

// hookNames returns the names of our hooks, in detachOrder.
func (p *Path) hookNames() []string { return hooksOf(slices.Collect(maps.Keys(p.hooks))) }

// encapHook returns the name of the hook of encap.
func (p *Path) encapHook() string {
	if p.filters {
		return filterName(p.filterKey(p.config.Device, true))
	}
	return linkEncap
}

// decapHook returns the name of the hook of decap at an uplink.
func (p *Path) decapHook(index int) string {
	if p.filters {
		return filterName(p.filterKey(index, false))
	}
	return linkTCPrefix + strconv.Itoa(index)
}

func (p *Path) filterKey(index int, egress bool) tchook.Key {
	return tchook.Key{Egress: egress, Index: index, Owner: p.config.Device}
}

// Attach attaches encap to the device, and the decap programs to these uplinks and no
// others. Uplinks are indexes of interfaces. decap_xdp is only for those that gain by it;
// see XDPRefusals. Attach is called again when uplinks come, go or change. It skips one
// that has gone. Datagrams of other interfaces go to the socket.
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
	segmenter, err := p.attachSegmenter(uplinks)
	if err != nil {
		return fmt.Errorf("attach kernel path: %w", err)
	}
	if err := p.attachTC(p.encapHook(), p.config.Device, p.Encap, ebpf.AttachTCXEgress); err != nil {
		return fmt.Errorf("attach kernel path to interface %d: %w", p.config.Device, err)
	}
	if err := p.detachOthers(append(slices.Clone(uplinks), segmenter...)); err != nil {
		return fmt.Errorf("detach kernel path: %w", err)
	}
	if p.config.PinDir != "" {
		if err := p.commitPins(); err != nil {
			return fmt.Errorf("pin kernel path: %w", err)
		}
	}
	return nil
}

// detachOthers ends the hooks at other interfaces, also those of an earlier process.
func (p *Path) detachOthers(uplinks []int) error {
	names := slices.Collect(maps.Keys(p.hooks))
	if p.config.PinDir != "" {
		pinned, err := entryNames(p.config.PinDir)
		if err != nil {
			return err
		}
		names = append(names, pinned...)
	}
	keep := []string{p.encapHook()}
	for _, index := range uplinks {
		keep = append(keep, p.decapHook(index), xdpLink(index))
	}
	for _, name := range hooksOf(names) {
		if !slices.Contains(keep, name) {
			if err := p.detach(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// detach ends a hook, also that of an earlier process; no error if there is none.
func (p *Path) detach(name string) error {
	h, err := p.hook(name)
	if h == nil || err != nil {
		return err
	}
	delete(p.hooks, name)
	return h.End()
}

func (p *Path) attachUplink(index int) error {
	i, err := p.tc.LinkByIndex(index)
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
	err = p.attachTC(p.decapHook(index), index, program, ebpf.AttachTCXIngress)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.attachXDP(i.Attrs())
}

// attachTC attaches a program before all others of the interface. A program before ours
// that ends the chain (TCX_PASS) would lead datagrams past ours to the socket. On virtual
// links the socket cannot use these.
func (p *Path) attachTC(name string, index int, program *ebpf.Program, to ebpf.AttachType) error {
	return p.attach(name, index, program, func() (tchook.Hook, error) {
		if p.filters {
			return tchook.AddFilter(p.tc, p.filterKey(index, to == ebpf.AttachTCXEgress), program)
		}
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: to, Anchor: link.Head()})
		return tchook.Link{Link: l}, err
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

// attach attaches a program to an interface if it is not in its place. A hook that an
// earlier process pinned under that name runs this program from the next packet on.
func (p *Path) attach(name string, index int, program *ebpf.Program, open func() (tchook.Hook, error)) error {
	_, ours := p.hooks[name]
	h, err := p.hook(name)
	if err != nil {
		return err
	}
	if h != nil {
		why, err := p.misplaced(h, index)
		if err != nil && !ours {
			err = errors.Join(err, h.Close())
		}
		if err != nil {
			return err
		}
		if why == nil {
			if !ours {
				if err := h.Replace(program); err != nil {
					return errors.Join(fmt.Errorf("replace program: %w", explain(err)), h.Close())
				}
				p.hooks[name] = attachment{h, index}
			}
			return nil
		}
		p.repair(index, why)
		delete(p.hooks, name)
		if err := h.End(); err != nil {
			return err
		}
	}
	if h, err = open(); err != nil {
		return explain(err)
	}
	if p.config.PinDir != "" {
		// A daemon of another namespace removes the pins of a device that seems gone. It
		// seems so if a person has detached its link.
		err := os.MkdirAll(p.config.PinDir, 0o700)
		if err == nil {
			err = h.Pin(filepath.Join(p.config.PinDir, name))
		}
		if err != nil {
			return errors.Join(fmt.Errorf("pin %s: %w", name, err), h.Close())
		}
	}
	p.hooks[name] = attachment{h, index}
	return nil
}

// hook returns the hook of that name, ours or a pinned one; nil if there is none.
func (p *Path) hook(name string) (tchook.Hook, error) {
	if a, ours := p.hooks[name]; ours {
		return a.Hook, nil
	}
	if p.config.PinDir == "" {
		return nil, nil
	}
	return pinnedHook(p.tc, filepath.Join(p.config.PinDir, name))
}
