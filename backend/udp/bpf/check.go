package bpf

import (
	"errors"
	"fmt"
)

// Check compares the kernel's table of peers and the attached programs with those
// of Set, Apply and Attach. The error names the difference.
func (p *Path) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.checkPeers(), p.checkLinks())
}

func (p *Path) checkPeers() error {
	right, wrong := 0, 0
	var example Peer
	err := p.readPeers(func(k flannelKey, v flannelPeer) {
		if o, known := p.table[k]; known && o == v.endpoint() {
			right++
		} else {
			wrong++
			example = peerOf(k, v.endpoint())
		}
	})
	switch {
	case err != nil:
		return err
	case wrong > 0:
		return fmt.Errorf("the kernel's table has %d peers that it should not have, such as %v at %v", wrong, example.Subnet, example.Addr)
	case right < len(p.table):
		return fmt.Errorf("the kernel's table lacks %d of %d peers", len(p.table)-right, len(p.table))
	}
	return nil
}

func (p *Path) checkLinks() error {
	for _, name := range p.linkNames() {
		l := p.links[name]
		where := fmt.Sprintf("interface %d", l.index)
		if name == linkEncap {
			where = "the device"
		}
		attached, err := interfaceOf(l)
		if err != nil {
			return fmt.Errorf("look at the program on %s: %w", where, err)
		}
		if attached != l.index {
			return fmt.Errorf("the program on %s is detached", where)
		}
	}
	return nil
}
