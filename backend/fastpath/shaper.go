package fastpath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// shaped returns why packets of an interface must not pass it by: a shaper, a
// filter or a program of others. Empty: nothing.
func (p *programs) shaped(h *netlink.Handle, index int) (string, error) {
	qdiscs, err := h.QdiscList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil {
		return "", fmt.Errorf("list qdiscs of interface %d: %w", index, err)
	}
	for _, q := range qdiscs {
		switch kind := q.Type(); kind {
		case "noqueue":
		case "clsact", "ingress":
			if has, err := filtered(h, index); has || err != nil {
				return "tc filter", err
			}
		default:
			return "qdisc " + kind, nil
		}
	}
	return p.foreignProgram(index)
}

func filtered(h *netlink.Handle, index int) (bool, error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := h.FilterList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, parent)
		if errors.Is(err, unix.EINVAL) { // an ingress qdisc has no egress
			continue
		}
		if err != nil {
			return false, fmt.Errorf("list tc filters of interface %d: %w", index, err)
		}
		if len(filters) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// foreignProgram looks for tcx programs that are not ours. It runs in the
// network namespace of the device.
func (p *programs) foreignProgram(index int) (string, error) {
	ours, err := p.ids()
	if err != nil {
		return "", err
	}
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("list programs of interface %d: %w", index, err)
		}
		for _, program := range result.Programs {
			if !slices.Contains(ours, program.ID) {
				return "tcx program", nil
			}
		}
	}
	return "", nil
}

// ids are those of our programs, and of those that an earlier version has left
// at ports.
func (p *programs) ids() ([]ebpf.ProgramID, error) {
	var ids []ebpf.ProgramID
	for name, program := range p.byName() {
		info, err := (*program).Info()
		if err != nil {
			return nil, fmt.Errorf("look at program %s: %w", name, err)
		}
		if id, ok := info.ID(); ok {
			ids = append(ids, id)
		}
	}
	hooks, err := p.hooks()
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if _, done := p.attached[h]; done {
			continue
		}
		l, err := p.pinned(h)
		if err != nil || l == nil {
			return nil, err
		}
		info, err := l.Info()
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, fmt.Errorf("look at program %s: %w", h.program, err)
		}
		ids = append(ids, info.Program)
	}
	return ids, nil
}
