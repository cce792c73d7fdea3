package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/netnstest/packetfault"
)

// before attaches a program before all others of the node's uplink. It ends the chain
// with TCX_PASS, so that datagrams reach the socket.
func (n *node) before(t *testing.T) {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11
		t.Fatal(err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	uplink, err := n.Netlink().LinkByName(netnstest.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	err = n.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: uplink.Attrs().Index, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
		})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = n.Netlink().FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: uplink.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL},
			Fd:          p.FD(), Name: "foreign", DirectAction: true,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// firstProgram returns the first program for frames that arrive at an interface.
func (n *node) firstProgram(t *testing.T, index int) ebpf.ProgramID {
	t.Helper()
	var chain []link.AttachedProgram
	err := n.Do(func() (err error) {
		chain, err = netdev.Programs(index, ebpf.AttachTCXIngress)
		return err
	})
	if errors.Is(err, unix.EINVAL) { // before Linux 6.6
		return n.firstFilter(t, index)
	}
	if err != nil {
		t.Fatalf("programs of interface %d: %v", index, err)
	}
	if len(chain) == 0 {
		return 0
	}
	return chain[0].ID
}

// firstFilter is firstProgram on a kernel without tcx.
func (n *node) firstFilter(t *testing.T, index int) ebpf.ProgramID {
	t.Helper()
	filters, err := n.Netlink().FilterList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		t.Fatalf("filters of interface %d: %v", index, err)
	}
	if len(filters) == 0 {
		return 0
	}
	return ebpf.ProgramID(filters[0].(*netlink.BpfFilter).Id)
}

// The link between these hosts carries super-packets, which only the programs take.
// Another program before ours would lead TCP to nowhere.
func TestKernelProgramsArePutBack(t *testing.T) {
	for name, disturb := range map[string]func(*node, *testing.T){
		"another program is before ours": (*node).before,
		"a person detaches ours":         (*node).detach,
	} {
		t.Run(name, func(t *testing.T) {
			c, a, b, _, db := kernelPair(t)
			uplink, err := b.Netlink().LinkByName(netnstest.Uplink)
			if err != nil {
				t.Fatal(err)
			}
			ours := b.firstProgram(t, uplink.Attrs().Index)
			disturb(b, t)
			db.says("attach program of kernel data path again")
			eventually(t, "the program is the first one again", func() error {
				if first := b.firstProgram(t, uplink.Attrs().Index); first != ours {
					return fmt.Errorf("it is %d, was %d", first, ours)
				}
				return nil
			})
			c.awaitKernelPackets(a, b)
			copyBulk(t, a.container, b.container)
			c.awaitKernelLease(b)
		})
	}
}

// detach detaches the programs of the node's kernel data path.
func (n *node) detach(t *testing.T) {
	t.Helper()
	dir := pinsOf(t, n)[0]
	filters, err := filepath.Glob(filepath.Join(dir, "filter_*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(filters) > 0 {
		n.run("tc", "filter", "del", "dev", netnstest.Uplink, "ingress")
		n.run("tc", "filter", "del", "dev", "flannel0", "egress")
		return
	}
	pins, err := filepath.Glob(filepath.Join(dir, "link_*"))
	if err != nil || len(pins) < 2 {
		t.Fatalf("pinned links are %v: %v", pins, err)
	}
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Detach(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A program that comes before ours again and again ends the kernel data path.
func TestKernelContestedPosition(t *testing.T) {
	c, a, b, _, _ := kernelPair(t)
	uplink, err := b.Netlink().LinkByName(netnstest.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	var theirs ebpf.ProgramID // before ours at the last look
	eventually(t, "the status and the lease show it", func() error {
		first := b.firstProgram(t, uplink.Attrs().Index)
		if first != theirs {
			b.before(t)
			theirs = b.firstProgram(t, uplink.Attrs().Index)
		}
		if s := b.status().Backend; s.DataPath != "offload" || !strings.Contains(s.DataPathReason, "another program is before them") {
			return fmt.Errorf("data path %s: %s", s.DataPath, s.DataPathReason)
		}
		if value := c.leases()[b.leaseKey()]; strings.Contains(value, "DataPath") {
			return fmt.Errorf("the lease is %s", value)
		}
		return nil
	})
	copyBulk(t, a.container, b.container)
}

// What the programs unwrap passes another program at the device's ingress. A crash of
// Linux 7.3.4 was seen there, when they removed the tunnel's mark.
func TestIngressProgramAtDevice(t *testing.T) {
	_, a, b, _, _ := kernelPair(t)
	for _, n := range []*node{a, b} {
		packetfault.Plant(t, n.Host, "flannel0", packetfault.LongerThan(1<<20), packetfault.Drop()) // meets no packet
	}
	copyBulk(t, a.container, b.container)
	copyBulk(t, b.container, a.container)
}
