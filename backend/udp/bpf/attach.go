package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Attach puts the programs to work: out on the device, in on these uplinks and
// no others, given by index. It may be called again as they come and go; one
// that has gone meanwhile is passed over. An uplink that datagrams arrive by
// and that is not among these leaves them to the socket.
//
// It must be called in the network namespace of the device.
func (p *Path) Attach(uplinks []int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, index := range uplinks {
		if err := p.attachUplink(index); err != nil {
			return fmt.Errorf("attach kernel path to interface %d: %w", index, err)
		}
	}
	if err := p.attachDevice(); err != nil {
		return fmt.Errorf("attach kernel path to interface %d: %w", p.config.Device, err)
	}
	if err := p.detachOthers(uplinks); err != nil {
		return fmt.Errorf("detach kernel path: %w", err)
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
func (p *Path) detachOthers(uplinks []int) error {
	for index, l := range p.in {
		if slices.Contains(uplinks, index) {
			continue
		}
		if err := end(l); err != nil {
			return err
		}
		delete(p.in, index)
	}
	if p.config.PinDir == "" {
		return nil
	}
	pinned, err := p.pinnedUplinks()
	if err != nil {
		return err
	}
	for _, index := range pinned {
		if p.in[index] != nil {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(p.config.PinDir, linkIn(index)), nil)
		if err != nil {
			return explain(err)
		}
		if err := end(l); err != nil {
			return err
		}
	}
	return nil
}

func (p *Path) attachUplink(index int) error {
	if l := p.in[index]; l != nil {
		attached, err := interfaceOf(l)
		if err != nil || attached == index {
			return err
		}
		// The interface has gone, and another has its number now.
		if err := end(l); err != nil {
			return err
		}
		delete(p.in, index)
	}
	program, err := p.programFor(index)
	if program == nil || err != nil {
		return err
	}
	l, err := p.attach(program, ebpf.AttachTCXIngress, index, linkIn(index))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err == nil {
		p.in[index] = l
	}
	return err
}

func (p *Path) attachDevice() error {
	if p.out != nil {
		return nil
	}
	l, err := p.attach(p.Out, ebpf.AttachTCXEgress, p.config.Device, linkOut)
	if err == nil {
		p.out = l
	}
	return err
}

// programFor picks the program by the length of the interface's link header;
// nil if there is no such interface.
func (p *Path) programFor(index int) (*ebpf.Program, error) {
	i, err := netlink.LinkByIndex(index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	switch kind := i.Attrs().EncapType; kind {
	case "ether", "loopback":
		return p.InEther, nil
	case "none", "ppp":
		return p.InBare, nil
	default:
		return nil, fmt.Errorf("link layer %q of %s: %w", kind, i.Attrs().Name, ebpf.ErrNotSupported)
	}
}

// attach makes a link, or has the one that an earlier process pinned under that
// name run this program from the next packet on.
func (p *Path) attach(program *ebpf.Program, kind ebpf.AttachType, index int, name string) (link.Link, error) {
	path := filepath.Join(p.config.PinDir, name)
	if p.config.PinDir != "" {
		l, err := link.LoadPinnedLink(path, nil)
		if err == nil {
			if attached, err := interfaceOf(l); err == nil && attached == index {
				if err := l.Update(program); err != nil {
					return nil, errors.Join(fmt.Errorf("replace program: %w", explain(err)), l.Close())
				}
				return l, nil
			}
			if err := end(l); err != nil {
				return nil, err
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: kind})
	if err != nil {
		return nil, explain(err)
	}
	if p.config.PinDir != "" {
		if err := l.Pin(path); err != nil {
			return nil, errors.Join(fmt.Errorf("pin %s: %w", path, err), l.Close())
		}
	}
	return l, nil
}

// interfaceOf is the index of the interface that a link is attached to, 0 after
// that has gone.
func interfaceOf(l link.Link) (int, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	tcx := info.TCX()
	if tcx == nil {
		return 0, fmt.Errorf("link %d is not of tcx", info.ID)
	}
	return int(tcx.Ifindex), nil
}

func linkIn(index int) string { return linkInPrefix + strconv.Itoa(index) }
