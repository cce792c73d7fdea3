package fastpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/pinned"
)

// linkPrefix begins the names of pinned links: link_PROGRAM_INDEX.
const linkPrefix = "link_"

// hook is a program at an interface.
type hook struct {
	program string // its name
	index   int    // of the interface
}

func (h hook) pin() string { return linkPrefix + h.program + "_" + strconv.Itoa(h.index) }

// hookOf is the inverse of pin.
func hookOf(pin string) (hook, bool) {
	name, ours := strings.CutPrefix(pin, linkPrefix)
	i := strings.LastIndexByte(name, '_')
	if !ours || i < 0 {
		return hook{}, false
	}
	index, err := strconv.Atoi(name[i+1:])
	return hook{name[:i], index}, err == nil
}

func (p *programs) deviceHook() hook { return hook{fastpathProgToContainer, p.config.Device} }

func portHooks(index int) []hook {
	return []hook{{fastpathProgLeft, index}, {fastpathProgFromContainer, index}}
}

// attach attaches a program, or has the link of an earlier process run it from
// the next packet on. An interface that has gone meanwhile is no error.
func (p *programs) attach(h hook) error {
	program := *p.byName()[h.program]
	l, err := p.pinned(h)
	if err != nil {
		return fmt.Errorf("attach %s to interface %d: %w", h.program, h.index, err)
	}
	if l != nil {
		if index, err := pinned.InterfaceOf(l); err == nil && index == h.index {
			return errors.Join(l.Update(program), l.Close())
		}
		if err := pinned.End(l); err != nil {
			return fmt.Errorf("detach %s from interface %d: %w", h.program, h.index, err)
		}
	}
	options := link.TCXOptions{Interface: h.index, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()}
	if h.program == fastpathProgLeft || h.program == fastpathProgWhole {
		options.Attach = ebpf.AttachTCXEgress
	}
	l, err = link.AttachTCX(options)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err == nil {
		err = errors.Join(l.Pin(filepath.Join(p.config.PinDir, h.pin())), l.Close())
	}
	if err != nil {
		return fmt.Errorf("attach %s to interface %d: %w", h.program, h.index, explain(err))
	}
	return nil
}

func (p *programs) detach(h hook) error {
	l, err := p.pinned(h)
	if err == nil && l != nil {
		err = pinned.End(l)
	}
	if err != nil {
		return fmt.Errorf("detach %s from interface %d: %w", h.program, h.index, err)
	}
	return nil
}

// pinned opens the pinned link of a hook; nil if there is none.
func (p *programs) pinned(h hook) (link.Link, error) {
	return pinned.Link(filepath.Join(p.config.PinDir, h.pin()))
}

// hooks lists the pinned links.
func (p *programs) hooks() ([]hook, error) {
	entries, err := os.ReadDir(p.config.PinDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list links of fast path: %w", err)
	}
	var hooks []hook
	for _, e := range entries {
		if h, ok := hookOf(e.Name()); ok {
			hooks = append(hooks, h)
		}
	}
	return hooks, nil
}
