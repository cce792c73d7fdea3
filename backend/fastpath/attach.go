package fastpath

import (
	"cmp"
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
	"github.com/coreos/flannel/pkg/tchook"
)

// Beginnings of the names of pins: link_PROGRAM_INDEX, filter_PROGRAM_INDEX_OWNER.
const (
	linkPrefix   = "link_"
	filterPrefix = "filter_"
)

// hook is a program at an interface.
type hook struct {
	program string // its name
	index   int    // of the interface
	owner   int    // of a filter of tc, see Config.owner; 0: a link of tcx
}

func (h hook) pin() string {
	if h.owner != 0 {
		return fmt.Sprintf("%s%s_%d_%d", filterPrefix, h.program, h.index, h.owner)
	}
	return fmt.Sprintf("%s%s_%d", linkPrefix, h.program, h.index)
}

// hookOf is the inverse of pin.
func hookOf(pin string) (h hook, ok bool) {
	name, isLink := strings.CutPrefix(pin, linkPrefix)
	if !isLink {
		if name, ok = strings.CutPrefix(pin, filterPrefix); !ok {
			return h, false
		}
		if name, h.owner, ok = cutNumber(name); !ok {
			return h, false
		}
	}
	h.program, h.index, ok = cutNumber(name)
	return h, ok
}

// cutNumber cuts a number after an underscore from the end of a name.
func cutNumber(name string) (rest string, n int, ok bool) {
	i := strings.LastIndexByte(name, '_')
	if i < 0 {
		return name, 0, false
	}
	n, err := strconv.Atoi(name[i+1:])
	return name[:i], n, err == nil
}

func (h hook) egress() bool {
	return h.program == fastpathProgLeft || h.program == fastpathProgWhole
}

func (h hook) key() tchook.Key {
	return tchook.Key{Egress: h.egress(), Index: h.index, Owner: h.owner}
}

// before orders hooks by the time of their attachment. They end in the reverse order,
// which is that of a directory's entries. So the first filter at an interface, which has
// made the qdisc, ends last and removes it.
func (h hook) before(other hook) int { return cmp.Compare(other.pin(), h.pin()) }

// hook is one of the kind that the kernel has.
func (p *programs) hook(program string, index int) hook {
	h := hook{program: program, index: index}
	if p.filters {
		h.owner = p.config.owner()
	}
	return h
}

func (p *programs) portHooks(index int) []hook {
	return []hook{p.hook(fastpathProgLeft, index), p.hook(fastpathProgFromContainer, index)}
}

// attach attaches a program, or has the hook of an earlier process run it from the
// next packet on. id is the program's. An interface that has gone meanwhile is no error.
func (p *programs) attach(h hook, id ebpf.ProgramID) error {
	program := *p.byName()[h.program]
	runs, err := p.takeOver(h, program, id)
	if err == nil && !runs {
		err = p.add(h, program)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("attach %s to interface %d: %w", h.program, h.index, explain(err))
	}
	return nil
}

// takeOver has a pinned hook run a program, and reports whether it does. A hook that is
// not attached ends: its interface was deleted, or another process has detached it.
func (p *programs) takeOver(h hook, program *ebpf.Program, id ebpf.ProgramID) (runs bool, err error) {
	old, err := p.pinned(h)
	if old == nil || err != nil {
		return false, err
	}
	if runs, err = old.Runs(h.index, id); runs || err != nil {
		return runs, errors.Join(err, old.Close())
	}
	// Other programs at a port keep the fast path away from it; see linkInspector.
	why, err := old.Misplaced(h.index)
	if err != nil {
		return false, errors.Join(err, old.Close())
	}
	if errors.Is(why, tchook.ErrDetached) { // promise: program-is-attached-again
		return false, old.End()
	}
	return true, errors.Join(old.Replace(program), old.Close())
}

func (p *programs) add(h hook, program *ebpf.Program) error {
	n, err := p.open(h, program)
	if err != nil {
		return err
	}
	return errors.Join(n.Pin(filepath.Join(p.config.PinDir, h.pin())), n.Close())
}

func (p *programs) open(h hook, program *ebpf.Program) (tchook.Hook, error) {
	if h.owner != 0 {
		return tchook.AddFilter(p.tc, h.key(), program)
	}
	options := link.TCXOptions{Interface: h.index, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()}
	if h.egress() {
		options.Attach = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(options)
	return tchook.Link{Link: l}, err
}

func (p *programs) detach(h hook) error {
	old, err := p.pinned(h)
	if err == nil && old != nil {
		err = old.End()
	}
	if err != nil {
		return fmt.Errorf("detach %s from interface %d: %w", h.program, h.index, err)
	}
	return nil
}

// pinned returns the pinned hook; nil if there is none.
func (p *programs) pinned(h hook) (tchook.Hook, error) {
	path := filepath.Join(p.config.PinDir, h.pin())
	if h.owner != 0 {
		return tchook.PinnedFilter(p.tc, h.key(), path)
	}
	return tchook.PinnedLink(path)
}

// hooks lists the pinned hooks.
func (p *programs) hooks() ([]hook, error) {
	entries, err := os.ReadDir(p.config.PinDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list hooks of fast path: %w", err)
	}
	var hooks []hook
	for _, e := range entries {
		if h, ok := hookOf(e.Name()); ok {
			hooks = append(hooks, h)
		}
	}
	return hooks, nil
}

// attachedIDs returns the numbers of the programs that our links of tcx run: of this
// version, or of an earlier one.
func (p *programs) attachedIDs() (ids []ebpf.ProgramID, err error) {
	hooks, err := p.hooks()
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if h.owner != 0 { // a filter is no program of tcx
			continue
		}
		id, ok, err := pinned.ProgramOf(filepath.Join(p.config.PinDir, h.pin()))
		if err != nil {
			return nil, err
		}
		if ok { // else its pin has gone meanwhile
			ids = append(ids, id)
		}
	}
	return ids, nil
}
