package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/pinned"
	"github.com/coreos/flannel/pkg/tchook"
)

// misplaced is Misplaced of a hook. Programs of flannel for another network of this host
// may come first: they leave our datagrams alone.
func (p *Path) misplaced(h tchook.Hook, index int) (why, err error) {
	why, err = h.Misplaced(index)
	after, ok := errors.AsType[*tchook.AfterError](why)
	if !ok || err != nil || p.config.PinDir == "" {
		return why, err
	}
	related, err := pinned.ProgramsBeside(p.config.PinDir, linkTCPrefix+"*")
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(after.Programs, func(id ebpf.ProgramID) bool { return !slices.Contains(related, id) }) {
		return why, nil
	}
	return nil, nil
}

// repair logs that a program is attached anew, and counts it if another program ran
// before it.
func (p *Path) repair(index int, why error) {
	if !errors.Is(why, tchook.ErrDetached) {
		p.repairs++
	}
	log.Warningf("attach program of kernel data path again interface=%d reason=%q", index, why)
}

// Repairs returns how many times Attach has put a program back before another one.
func (p *Path) Repairs() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.repairs
}

// Behind lists the programs of others after ours at the uplinks, in order. They do not see the
// datagrams that ours take.
func (p *Path) Behind() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for name, h := range p.hooks {
		if name != p.decapHook(h.index) {
			continue
		}
		others, err := h.Behind()
		if err != nil {
			return "", err
		}
		for _, other := range others {
			all = append(all, fmt.Sprintf("%s at interface %d", other, h.index))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", "), nil
}
