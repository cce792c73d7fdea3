package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	log "github.com/golang/glog"
)

// errDetached is misplaced's reason for a link without an interface: a person
// detached it, or the interface was deleted.
var errDetached = errors.New("is detached")

// misplaced returns what is wrong with a link, or nil: its program is not attached
// to the interface, or runs after another one. XDP has one program.
func misplaced(l link.Link, index int) (why, err error) {
	info, err := l.Info()
	if err != nil {
		return nil, err
	}
	if xdp := info.XDP(); xdp != nil {
		if int(xdp.Ifindex) != index {
			return errDetached, nil
		}
		return nil, nil
	}
	tcx := info.TCX()
	if tcx == nil {
		return nil, fmt.Errorf("link %d is neither tcx nor XDP", info.ID)
	}
	if int(tcx.Ifindex) != index {
		return errDetached, nil
	}
	chain, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachType(tcx.AttachType)})
	if err != nil {
		return nil, fmt.Errorf("query programs of interface %d: %w", index, err)
	}
	if len(chain.Programs) > 0 && chain.Programs[0].ID != info.Program { // promise: our-programs-are-first
		return fmt.Errorf("runs after %s", nameOf(chain.Programs[0].ID)), nil
	}
	return nil, nil
}

// nameOf returns a program's name and number. The name needs CAP_SYS_ADMIN.
func nameOf(id ebpf.ProgramID) string {
	name := fmt.Sprintf("program %d", id)
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return name
	}
	defer p.Close()
	if info, err := p.Info(); err == nil {
		name += " (" + info.Name + ")"
	}
	return name
}

// repair logs that a program is attached anew, and counts it if another program ran
// before it.
func (p *Path) repair(index int, why error) {
	if !errors.Is(why, errDetached) {
		p.repairs++
	}
	log.Warningf("attach program of kernel data path again interface=%d reason=%q", index, why)
}

// Repairs returns how many times Attach has put a program before another one that
// came before it.
func (p *Path) Repairs() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.repairs
}

// Behind lists the programs of others that the path passes by: those after ours at
// the uplinks do not see the datagrams that ours take.
func (p *Path) Behind() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for name, l := range p.links {
		if !strings.HasPrefix(name, linkTCPrefix) {
			continue
		}
		chain, err := link.QueryPrograms(link.QueryOptions{Target: l.index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return "", fmt.Errorf("query programs of interface %d: %w", l.index, err)
		}
		for i, other := range chain.Programs {
			if i > 0 {
				all = append(all, fmt.Sprintf("%s at interface %d", nameOf(other.ID), l.index))
			}
		}
	}
	return strings.Join(all, ", "), nil
}
