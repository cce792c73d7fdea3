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

// hook is one of the two places where the packets of uplinks are unwrapped.
type hook struct {
	prefix string            // of the names of its pinned links
	links  map[int]link.Link // by index of the uplink
}

func (h hook) pin(index int) string { return h.prefix + strconv.Itoa(index) }

// hooks are those of uplinks, in the order in which they are to be detached:
// what early has unwrapped only in makes sense of.
func (p *Path) hooks() []hook { return []hook{p.early, p.in} }

// Attach puts the programs to work: out on the device, in on these uplinks and
// no others, given by index, and early on those of them that are the better for
// it; see Late. It may be called again as they come and go or change; one that
// has gone meanwhile is passed over. An uplink that datagrams arrive by and
// that is not among these leaves them to the socket.
//
// It must be called in the network namespace of the device.
func (p *Path) Attach(uplinks []int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.late)
	for _, index := range uplinks {
		if err := p.attachUplink(index); err != nil {
			return fmt.Errorf("attach kernel path to interface %d: %w", index, err)
		}
	}
	if err := p.attachDevice(); err != nil {
		return fmt.Errorf("attach kernel path to interface %d: %w", p.config.Device, err)
	}
	for _, h := range p.hooks() {
		if err := p.detachOthers(h, uplinks); err != nil {
			return fmt.Errorf("detach kernel path: %w", err)
		}
	}
	if p.config.PinDir != "" {
		if err := p.seal(); err != nil {
			return fmt.Errorf("pin kernel path: %w", err)
		}
	}
	return nil
}

// detachOthers ends the links of other uplinks, also those of an earlier
// process.
func (p *Path) detachOthers(h hook, uplinks []int) error {
	have, err := p.pinnedUplinks(h)
	if err != nil {
		return err
	}
	for index := range h.links {
		have = append(have, index)
	}
	for _, index := range have {
		if !slices.Contains(uplinks, index) {
			if err := p.detach(h, index); err != nil {
				return err
			}
		}
	}
	return nil
}

// detach ends a link, also that of an earlier process; no error if there is none.
func (p *Path) detach(h hook, index int) error {
	l := h.links[index]
	if l == nil {
		var err error
		if l, err = p.pinned(h.pin(index)); l == nil || err != nil {
			return err
		}
	}
	delete(h.links, index)
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
	err = p.attachTo(p.in, index, program, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress})
	})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.attachEarly(i.Attrs())
}

// attachTo attaches a program to an uplink, if it is not.
func (p *Path) attachTo(h hook, index int, program *ebpf.Program, open func() (link.Link, error)) error {
	if l := h.links[index]; l != nil {
		attached, err := interfaceOf(l)
		if err != nil || attached == index {
			return err
		}
		// The interface has gone, and another has its number now.
		if err := p.detach(h, index); err != nil {
			return err
		}
	}
	l, err := p.attach(h.pin(index), index, program, open)
	if err == nil {
		h.links[index] = l
	}
	return err
}

func (p *Path) attachDevice() error {
	if p.out != nil {
		return nil
	}
	l, err := p.attach(linkOut, p.config.Device, p.Out, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: p.config.Device, Program: p.Out, Attach: ebpf.AttachTCXEgress})
	})
	if err == nil {
		p.out = l
	}
	return err
}

// programFor picks the program by the length of the interface's link header.
func (p *Path) programFor(i *netlink.LinkAttrs) (*ebpf.Program, error) {
	switch i.EncapType {
	case "ether", "loopback":
		return p.InEther, nil
	case "none", "ppp":
		return p.InBare, nil
	default:
		return nil, fmt.Errorf("link layer %q of %s: %w", i.EncapType, i.Name, ebpf.ErrNotSupported)
	}
}

// attach makes a link, or has the one that an earlier process pinned under that
// name run this program from the next packet on.
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

// pinned is the link that is pinned under a name; nil if there is none.
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

// pinnedUplinks are the indexes of the uplinks that have a pinned link.
func (p *Path) pinnedUplinks(h hook) ([]int, error) {
	if p.config.PinDir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(p.config.PinDir)
	if err != nil {
		return nil, err
	}
	var indexes []int
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), h.prefix)
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

// interfaceOf is the index of the interface that a link is attached to, 0 after
// that has gone.
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
	return 0, fmt.Errorf("link %d is neither of tcx nor of XDP", info.ID)
}
