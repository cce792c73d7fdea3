package tchook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Filter is a program that a filter of tc runs (cls_bpf with direct action, at the
// qdisc clsact). It is for kernels without tcx, older than Linux 6.6.
//
// The kernel keeps a filter without a descriptor of it. The pin is a directory, which
// tells the next process of the filter, and of the qdisc if that is ours.
type Filter struct {
	tc *netlink.Handle
	Key
	path      string // of the pin; "": none
	madeQdisc bool   // the qdisc is ours too
}

// Key identifies a filter of ours in a network namespace.
type Key struct {
	Egress bool
	Index  int // of the interface
	// Owner is a number of the network, such as the index of its tunnel device. Two
	// networks have filters of their own.
	Owner int
}

// qdiscPin is the pin of a qdisc, below that of the filter.
const qdiscPin = "clsact"

// label is the name of our filters in "tc filter show".
const label = "flannel"

// handles begins the handles of our filters; the rest is the owner.
// Other programs number theirs from 1.
const (
	handles   = 0x666c0000 // "fl"
	ownerMask = 0xffff
)

func (k Key) parent() uint32 {
	if k.Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// Attrs has preference 1: the kernel asks filters in the order of their preference,
// and those of one preference from the last added to the first (cls_bpf_change,
// net/sched/cls_bpf.c).
func (k Key) Attrs() netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: k.Index, Parent: k.parent(), Handle: handles | uint32(k.Owner)&ownerMask,
		Priority: 1, Protocol: unix.ETH_P_ALL,
	}
}

// Is reports whether a filter of the kernel's list has the key.
func (k Key) Is(other netlink.Filter) bool {
	owner, ours := OwnerOf(other)
	return ours && owner == k.Owner&ownerMask
}

// OwnerOf returns the owner of a filter of the kernel's list; ours is false if it is not
// flannel's.
func OwnerOf(f netlink.Filter) (owner int, ours bool) {
	b, ok := f.(*netlink.BpfFilter)
	if !ok || b.Name != label || b.Handle&^ownerMask != handles {
		return 0, false
	}
	return int(b.Handle & ownerMask), true
}

// AddFilter attaches a program before all other filters of an interface. tc is of the
// network namespace of the interface.
func AddFilter(tc *netlink.Handle, k Key, program *ebpf.Program) (*Filter, error) {
	f := &Filter{tc: tc, Key: k}
	if err := f.addQdisc(); err != nil {
		return nil, err
	}
	if err := f.Replace(program); err != nil {
		return nil, errors.Join(err, f.End())
	}
	return f, nil
}

// addQdisc adds the qdisc unless it is there. With the first qdisc the kernel gives an
// interface without a queue a queue length of 1000 (qdisc_create, net/sched/sch_api.c).
// addQdisc takes that back, since clsact has no queue.
func (f *Filter) addQdisc() error {
	link, readErr := f.tc.LinkByIndex(f.Index)
	err := f.tc.QdiscAdd(f.qdisc())
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("add qdisc clsact: %w", explain(err, "sch_ingress"))
	}
	f.madeQdisc = true
	if readErr != nil || link.Attrs().TxQLen != 0 {
		return nil
	}
	if err := f.tc.LinkSetTxQLen(link, 0); err != nil {
		return errors.Join(fmt.Errorf("reset length of queue of %s: %w", link.Attrs().Name, err), f.End())
	}
	return nil
}

func (f *Filter) qdisc() netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: f.Index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0),
	}}
}

// PinnedFilter returns the filter that is pinned at path; nil if there is none.
func PinnedFilter(tc *netlink.Handle, k Key, path string) (Hook, error) {
	pins, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pin of filter: %w", err)
	}
	isQdisc := func(pin os.DirEntry) bool { return pin.Name() == qdiscPin }
	return &Filter{tc: tc, Key: k, path: path, madeQdisc: slices.ContainsFunc(pins, isQdisc)}, nil
}

// Runs implements [Hook].
func (f *Filter) Runs(index int, program ebpf.ProgramID) (bool, error) {
	all, err := f.chain(f.parent())
	if err != nil {
		return false, err
	}
	return f.Index == index && slices.ContainsFunc(all, func(x netlink.Filter) bool {
		b, ok := x.(*netlink.BpfFilter)
		return ok && f.Is(b) && b.Id == int(program)
	}), nil
}

// Replace implements [Hook]: the kernel exchanges a filter of the same handle in its
// place.
func (f *Filter) Replace(program *ebpf.Program) error {
	err := f.tc.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: f.Attrs(), Fd: program.FD(), Name: label, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("put filter of tc with preference 1: %w", explain(err, "cls_bpf"))
	}
	return nil
}

// explain adds the remedy if the kernel does not know the kind of qdisc or filter
// (qdisc_create, net/sched/sch_api.c; tcf_proto_lookup_ops, net/sched/cls_api.c). A kernel
// that has none of them has no such messages (EOPNOTSUPP, rtnetlink_rcv_msg in
// net/core/rtnetlink.c).
func explain(err error, module string) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w; the kernel may lack the module: load it with \"modprobe %s\"", err, module)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w; the kernel may lack traffic control (CONFIG_NET_SCHED, CONFIG_NET_CLS_ACT)", err)
	}
	return err
}

// chain lists the filters of one direction of an interface, in the kernel's order.
func (f *Filter) chain(parent uint32) ([]netlink.Filter, error) {
	all, err := f.tc.FilterList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: f.Index}}, parent)
	if err != nil {
		return nil, fmt.Errorf("list filters of interface %d: %w", f.Index, err)
	}
	// The kernel begins with chain 0. A filter in another needs one that leads there.
	return slices.DeleteFunc(all, func(x netlink.Filter) bool {
		c := x.Attrs().Chain
		return c != nil && *c != 0
	}), nil
}

// Misplaced implements [Hook].
func (f *Filter) Misplaced(index int) (why, err error) {
	all, err := f.chain(f.parent())
	if err != nil {
		return nil, err
	}
	position := slices.IndexFunc(all, f.Is)
	if position < 0 || f.Index != index {
		return ErrDetached, nil
	}
	for _, other := range all[:position] {
		if b, ok := other.(*netlink.BpfFilter); !ok || b.Name != label { // flannel's for another network leave our packets alone
			return fmt.Errorf("runs after %s", describe(other)), nil
		}
	}
	return nil, nil
}

// Behind implements [Hook].
func (f *Filter) Behind() (names []string, err error) {
	all, err := f.chain(f.parent())
	if err != nil {
		return nil, err
	}
	for _, other := range all[slices.IndexFunc(all, f.Is)+1:] {
		names = append(names, describe(other))
	}
	return names, nil
}

func describe(x netlink.Filter) string {
	if b, ok := x.(*netlink.BpfFilter); ok {
		return fmt.Sprintf("program %d (%s)", b.Id, b.Name)
	}
	return fmt.Sprintf("a %s filter with preference %d", x.Type(), x.Attrs().Priority)
}

// Pin implements [Hook].
func (f *Filter) Pin(path string) error {
	err := os.Mkdir(path, 0o700)
	if err == nil && f.madeQdisc {
		err = os.Mkdir(filepath.Join(path, qdiscPin), 0o700)
	}
	if err != nil {
		return err
	}
	f.path = path
	return nil
}

// End implements [Hook]. The qdisc goes with its last filter if it is ours.
func (f *Filter) End() error {
	why, err := f.Misplaced(f.Index)
	if err == nil && !errors.Is(why, ErrDetached) {
		if err = f.tc.FilterDel(&netlink.BpfFilter{FilterAttrs: f.Attrs(), Fd: -1}); err != nil {
			err = fmt.Errorf("delete filter of interface %d: %w", f.Index, err)
		}
	}
	if err == nil && f.madeQdisc {
		err = f.removeQdisc()
	}
	if f.path != "" {
		err = errors.Join(err, os.RemoveAll(f.path))
		f.path = ""
	}
	f.madeQdisc = false
	return err
}

func (f *Filter) removeQdisc() error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if left, err := f.chain(parent); err != nil || len(left) > 0 {
			return err
		}
	}
	err := f.tc.QdiscDel(f.qdisc())
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("delete qdisc clsact of interface %d: %w", f.Index, err)
	}
	return nil // it went with its interface, or another program has deleted it
}

// Close leaves a pinned filter in place.
func (f *Filter) Close() error {
	if f.path != "" { // promise: pinned-filter-stays
		return nil
	}
	return f.End()
}
