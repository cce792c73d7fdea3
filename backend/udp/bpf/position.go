package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	log "github.com/golang/glog"
)

// errDetached is misplaced's reason for a hook without an interface: a person
// detached it, or the interface was deleted.
var errDetached = errors.New("is detached")

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
	for name, h := range p.hooks {
		if name != p.decapHook(h.index) {
			continue
		}
		others, err := h.behind()
		if err != nil {
			return "", err
		}
		for _, other := range others {
			all = append(all, fmt.Sprintf("%s at interface %d", other, h.index))
		}
	}
	return strings.Join(all, ", "), nil
}
