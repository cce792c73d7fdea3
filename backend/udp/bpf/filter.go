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
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// filter is a program that a filter of tc runs (cls_bpf with direct action, at the
// qdisc clsact). It is for kernels without tcx, older than Linux 6.6.
//
// The kernel keeps a filter without a descriptor of it. The pin is a directory whose
// name describes the filter.
type filter struct {
	tc *netlink.Handle
	filterKey
	path      string // of the pin; "": none
	madeQdisc bool   // the qdisc is ours too
}

// filterKey identifies a filter of ours in a network namespace. device is the
// index of the TUN device, so that two networks have filters of their own.
type filterKey struct {
	egress        bool
	index, device int
}

// Names of pins of filters, in PinDir, and of the pin of a qdisc below that.
const (
	filterPrefix = "filter_"
	filterOut    = filterPrefix + "out_"
	filterIn     = filterPrefix + "in_"
	qdiscPin     = "clsact"
)

// name is that of the pin: filter_in_INDEX_DEVICE.
func (k filterKey) name() string {
	prefix := filterIn
	if k.egress {
		prefix = filterOut
	}
	return prefix + strconv.Itoa(k.index) + "_" + strconv.Itoa(k.device)
}

// parseFilter is the inverse of name.
func parseFilter(name string) (filterKey, error) {
	numbers, egress := strings.CutPrefix(name, filterOut)
	if !egress {
		numbers = strings.TrimPrefix(name, filterIn)
	}
	index, device, _ := strings.Cut(numbers, "_")
	i, err := strconv.Atoi(index)
	d, err2 := strconv.Atoi(device)
	if err := errors.Join(err, err2); err != nil {
		return filterKey{}, fmt.Errorf("parse pin %s: %w", name, err)
	}
	return filterKey{egress, i, d}, nil
}

// filterLabel is the name of our filters in "tc filter show".
const filterLabel = "flannel"

// filterHandles begins the handles of our filters; the rest is the device's index.
// Other programs number theirs from 1.
const filterHandles = 0x666c0000 // "fl"

func (k filterKey) parent() uint32 {
	if k.egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// attrs has preference 1: the kernel asks filters in the order of their preference,
// and those of one preference from the last added to the first (cls_bpf_change,
// net/sched/cls_bpf.c).
func (k filterKey) attrs() netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: k.index, Parent: k.parent(), Handle: filterHandles | uint32(k.device)&0xffff,
		Priority: 1, Protocol: unix.ETH_P_ALL,
	}
}

// is reports whether a filter of the kernel's list has the key.
func (k filterKey) is(other netlink.Filter) bool {
	b, ok := other.(*netlink.BpfFilter)
	return ok && b.Name == filterLabel && b.Handle == k.attrs().Handle
}

// addFilter attaches a program before all other filters of an interface.
func addFilter(tc *netlink.Handle, k filterKey, program *ebpf.Program) (hook, error) {
	f := &filter{tc: tc, filterKey: k}
	err := tc.QdiscAdd(f.qdisc())
	f.madeQdisc = err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("add qdisc clsact (kernel module sch_ingress): %w", err)
	}
	if err := f.replace(program); err != nil {
		return nil, errors.Join(err, f.end())
	}
	return f, nil
}

func (f *filter) qdisc() netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: f.index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0),
	}}
}

// pinnedFilter returns the filter that is pinned at path; nil if there is none.
func pinnedFilter(tc *netlink.Handle, path string) (hook, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	k, err := parseFilter(filepath.Base(path))
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(path, qdiscPin))
	return &filter{tc: tc, filterKey: k, path: path, madeQdisc: err == nil}, nil
}

// replace implements hook: the kernel exchanges a filter of the same handle in its
// place.
func (f *filter) replace(program *ebpf.Program) error {
	err := f.tc.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: f.attrs(), Fd: program.FD(), Name: filterLabel, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("put filter of tc with preference 1 (kernel module cls_bpf): %w", err)
	}
	return nil
}

// chain lists the filters of one direction of an interface, in the kernel's order.
func (f *filter) chain(parent uint32) ([]netlink.Filter, error) {
	all, err := f.tc.FilterList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: f.index}}, parent)
	if err != nil {
		return nil, fmt.Errorf("list filters of interface %d: %w", f.index, err)
	}
	// The kernel begins with chain 0. A filter in another needs one that leads there.
	return slices.DeleteFunc(all, func(x netlink.Filter) bool {
		c := x.Attrs().Chain
		return c != nil && *c != 0
	}), nil
}

// misplaced implements hook.
func (f *filter) misplaced(index int) (why, err error) {
	all, err := f.chain(f.parent())
	if err != nil {
		return nil, err
	}
	switch position := slices.IndexFunc(all, f.is); {
	case position < 0 || f.index != index:
		return errDetached, nil
	case position > 0:
		return fmt.Errorf("runs after %s", describeFilter(all[0])), nil
	}
	return nil, nil
}

// behind describes the filters after ours.
func (f *filter) behind() (names []string, err error) {
	all, err := f.chain(f.parent())
	if err != nil {
		return nil, err
	}
	for _, other := range all[slices.IndexFunc(all, f.is)+1:] {
		names = append(names, describeFilter(other))
	}
	return names, nil
}

func describeFilter(x netlink.Filter) string {
	if b, ok := x.(*netlink.BpfFilter); ok {
		return fmt.Sprintf("program %d (%s)", b.Id, b.Name)
	}
	return fmt.Sprintf("a %s filter with preference %d", x.Type(), x.Attrs().Priority)
}

func (f *filter) pin(path string) error {
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

// end implements hook. The qdisc goes with its last filter if it is ours.
func (f *filter) end() error {
	why, err := f.misplaced(f.index)
	if err == nil && !errors.Is(why, errDetached) {
		if err = f.tc.FilterDel(&netlink.BpfFilter{FilterAttrs: f.attrs(), Fd: -1}); err != nil {
			err = fmt.Errorf("delete filter of interface %d: %w", f.index, err)
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

func (f *filter) removeQdisc() error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if left, err := f.chain(parent); err != nil || len(left) > 0 {
			return err
		}
	}
	err := f.tc.QdiscDel(f.qdisc())
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("delete qdisc clsact of interface %d: %w", f.index, err)
	}
	return nil // it went with its interface, or another program has deleted it
}

// Close leaves a pinned filter in place.
func (f *filter) Close() error {
	if f.path != "" { // promise: pinned-filter-stays
		return nil
	}
	return f.end()
}
